"""The manifest of a saved state: what it is of, and size and SHA-256 of every file, written last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from dschat.checksums import FileRecord, damage, file_record, files_below
from dschat.runtime import files
from dschat.runtime.distributed import gather, rank, world_size

MANIFEST_NAME = "manifest.json"
FORMAT = 1
PACKAGES = ("dschat", "torch", "deepspeed", "transformers", "numpy")


class DamagedState(Exception):
    """A folder that is no whole state; the text says why."""


@dataclass(frozen=True)
class Manifest:
    """What a state was saved of."""

    stage: str
    """sft, reward or ppo."""
    step: int
    """Steps that are done."""
    world_size: int
    """Ranks that saved it."""
    settings: Mapping[str, Any]
    """The decisive settings of the run."""
    run_seconds: float
    """Wall time of training so far, over all resumptions."""
    files: Mapping[str, FileRecord]
    settings_sha256: str = ""
    format: int = FORMAT
    saved_at: str = field(default_factory=lambda: time.strftime("%Y-%m-%d %H:%M:%S %z"))
    versions: Mapping[str, str] = field(default_factory=lambda: installed_versions())

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(size for size, _ in self.files.values())

    def write(self, folder: Path) -> None:
        """Write `folder/manifest.json`."""
        content = dataclasses.asdict(dataclasses.replace(self, settings_sha256=json_sha256(self.settings)))
        content["manifest_sha256"] = json_sha256(content)
        files.write_whole(folder / MANIFEST_NAME, (json.dumps(content, indent=1) + "\n").encode())

    @staticmethod
    def read(folder: Path) -> Manifest:
        """Read the manifest of a state; DamagedState if there is none or it is not whole."""
        try:
            content = json.loads((folder / MANIFEST_NAME).read_bytes())
            digest = content.pop("manifest_sha256")
            if content["format"] != FORMAT:
                raise DamagedState(f"{MANIFEST_NAME} has format {content['format']}, this version reads {FORMAT}")
            if json_sha256(content) != digest:
                raise DamagedState(f"{MANIFEST_NAME} has other content than was written")
            return Manifest(**content)
        except OSError as error:
            raise DamagedState(f"{MANIFEST_NAME} cannot be read: {error.strerror}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DamagedState(f"{MANIFEST_NAME} is not whole") from error


def record_files(folder: Path) -> dict[str, FileRecord]:
    """Force every file below a folder to disk and take its size and SHA-256; all ranks share the work."""
    names = files_below(folder)
    mine = names[rank() :: world_size()]
    for name in mine:
        files.sync_file(folder / name)
    records = {name: file_record(folder / name) for name in mine}
    return dict(sorted((name, record) for part in gather(records) for name, record in part.items()))


def verify(folder: Path, manifest: Manifest) -> str | None:
    """What is wrong with the files of a state, None if nothing; all ranks share the work."""
    mine = sorted(manifest.files)[rank() :: world_size()]
    faults = gather(damage(folder, {name: manifest.files[name] for name in mine}))
    return next((fault for fault in faults if fault is not None), None)


def json_sha256(content: Mapping[str, Any]) -> str:
    """SHA-256 of a JSON-serialisable mapping, hexadecimal."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def installed_versions() -> dict[str, str]:
    """Versions of Python and of the packages whose arithmetic a run rests on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found

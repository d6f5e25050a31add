"""Size and SHA-256 of files, and whether a folder still holds the files that were written into it.

Neither torch nor safetensors notices a flipped bit when it loads; only a checksum does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

SAMPLED_BYTES = 2**20

FileRecord = tuple[int, str]
"""Bytes of a file and their SHA-256 in hexadecimal."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_record(path: Path) -> FileRecord:
    """Size and SHA-256 of a file."""
    return path.stat().st_size, file_sha256(path)


def folder_key(folder: Path) -> str:
    """Stands for the content of a model folder: SHA-256 over names, sizes, and both ends of every file in it.

    Whole files of weights would take minutes; a changed weight without a changed end or size is not noticed.
    """
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        with path.open("rb") as file:
            digest.update(file.read(SAMPLED_BYTES))
            file.seek(max(0, size - SAMPLED_BYTES))
            digest.update(file.read(SAMPLED_BYTES))
    return digest.hexdigest()


def files_below(folder: Path) -> list[str]:
    """Every file of a folder and of the folders in it, relative to it, in order."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def damage(folder: Path, files: Mapping[str, FileRecord]) -> str | None:
    """The first difference between the files of a folder and their records, None if there is none."""
    try:
        for name, (size, digest) in files.items():
            path = folder / name
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size:,} bytes instead of {size:,}"
            if file_sha256(path) != digest:
                return f"{name} has other content than was written"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    return None

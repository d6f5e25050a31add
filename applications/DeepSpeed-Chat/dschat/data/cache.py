"""Folders of derived data: named by everything that shaped them, written aside and renamed, checked when read.

Nothing in them is a pickle, so a planted file can at worst be wrong data, and the checks make that hard too: the cache
belongs to this user alone, and each entry carries the size and SHA-256 of its files.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import datasets

from dschat.checksums import damage, file_record, files_below
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_BUILDING, _DAMAGED = ".building-", ".damaged-"
_SECONDS_TO_LOCK = 60.0


def content_key(parts: Mapping[str, Any]) -> str:
    """32 hexadecimal digits that stand for a JSON-serialisable mapping."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@cache
def code_key() -> str:
    """SHA-256 of this package's sources, so that data made by other code is never taken for ours."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def private_folder(path: Path) -> Path:
    """Make the cache folder (mode 0700) if it is not there.

    Raises:
        UserError: it cannot be made, is not a folder, or belongs to another user, who could change the data.
    """
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the data cache {path.absolute()} cannot be made ({error.strerror}); choose another --data_output_path"
        ) from error
    _check_owner(path)
    return path


def cached_folder(cache_dir: Path, name: str, build: Callable[[Path], None]) -> Path:
    """The folder `cache_dir/name`, built if it is missing or damaged.

    Several processes may ask at once: each that finds nothing builds aside, the first to finish is kept.

    Args:
        cache_dir: see `private_folder`.
        name: must contain a key of everything that shapes the content.
        build: fills the empty folder that it is given.
    Returns:
        A folder whose files match the manifest that was written with them.
    """
    target = private_folder(cache_dir) / name
    if target.exists():
        _check_owner(target)
        fault = _damage(target)
        if fault is None:
            return target
        logger.warning("the cached data %s is damaged (%s); building it again", target, fault)
        _discard(target)
    _sweep(cache_dir)
    aside = Path(tempfile.mkdtemp(prefix=f"{_BUILDING}{name}-", dir=cache_dir))
    try:
        with _in_use(aside):
            build(aside)
            _write_manifest(aside)
        try:
            aside.rename(target)
        except OSError:
            # Another process was faster; its folder is as good as ours.
            fault = _damage(target)
            if fault is not None:
                raise UserError(f"the cached data {target} cannot be replaced ({fault}); delete it by hand") from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """Within the body the folder is locked; the kernel frees it when the process ends, however it ends."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sweep(cache_dir: Path) -> None:
    """Delete folders whose builder was killed."""
    for folder in (*cache_dir.glob(f"{_BUILDING}*"), *cache_dir.glob(f"{_DAMAGED}*")):
        # one that was made this moment may not be locked yet
        try:
            if time.time() - folder.stat().st_mtime < _SECONDS_TO_LOCK:
                continue
            with _in_use(folder):
                shutil.rmtree(folder, ignore_errors=True)
        except (BlockingIOError, FileNotFoundError):
            continue


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """Keep the datasets library from drawing its own progress bars."""
    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()


def _check_owner(path: Path) -> None:
    owner = path.stat().st_uid
    if owner != os.geteuid():
        raise UserError(
            f"the data cache {path.absolute()} belongs to another user (id {owner}), who could change the data; "
            "choose another --data_output_path"
        )


def _write_manifest(folder: Path) -> None:
    files = {name: file_record(folder / name) for name in files_below(folder)}
    (folder / _MANIFEST).write_text(json.dumps({"files": files}, indent=1))


def _damage(folder: Path) -> str | None:
    """What is wrong with a finished folder, None if nothing."""
    try:
        return damage(folder, json.loads((folder / _MANIFEST).read_bytes())["files"])
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"{_MANIFEST} is not whole"


def _discard(folder: Path) -> None:
    """Move a folder out of the way in one step, then delete it."""
    aside = Path(tempfile.mkdtemp(prefix=_DAMAGED, dir=folder.parent))
    try:
        folder.rename(aside / folder.name)
    except FileNotFoundError:
        logger.info("%s was already removed by another process", folder)
    shutil.rmtree(aside, ignore_errors=True)

"""Changes to files that survive a kill between any two of them: written aside, forced to disk, renamed.

Every step is a place at which tests break the run (`dschat.runtime.faults`).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from dschat.errors import RankFault, TrainingFault
from dschat.runtime.distributed import is_about_lost_ranks
from dschat.runtime.faults import fault_point

ASIDE = ".tmp-"
"""Beginning of names that are being written; readers ignore them, the next run deletes them."""
REPLACED = ".tmp-was-"
"""Beginning of names of what is being replaced; the next run puts it back if nothing has taken its place."""
PRUNED = ".tmp-old-"
"""Beginning of names of what is being deleted, perhaps by half."""

MIB = 2**20
LONGEST_REASON = 300
FULL_DISK_SIGNS = ("unexpected pos", "No space left on device")


def aside(target: Path) -> Path:
    """Where to write what will become `target`; one process at a time writes in a run's folder."""
    return target.parent / f"{ASIDE}{target.name}"


@contextmanager
def explained(what: str, aside: Path, *, advice: str = "") -> Iterator[None]:
    """Turn a failed write in the body into one sentence, and leave nothing of it behind.

    Args:
        what: what is being written.
        aside: where; deleted on failure.
        advice: what to say at the end.
    Raises:
        RankFault: for what the libraries raise when a disk is full, gone or read-only.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if isinstance(error, TrainingFault) or is_about_lost_ranks(error):
            raise
        shutil.rmtree(aside, ignore_errors=True)
        place = next(folder for folder in aside.parents if folder.exists())
        free = shutil.disk_usage(place).free
        # torch says of a full disk that a position is unexpected
        full = getattr(error, "errno", None) == errno.ENOSPC or any(sign in str(error) for sign in FULL_DISK_SIGNS)
        reason = "the disk is full" if full else " ".join(str(error).split())[:LONGEST_REASON]
        raise RankFault(
            f"{what} could not be written to {aside.parent} ({reason}; {free / MIB:,.1f} MiB are free); make room "
            f"there{advice}"
        ) from error


def sync_file(path: Path) -> None:
    """Force a file's content to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Force the names in a folder, and in the folders below it, to disk."""
    for place, _, _ in os.walk(folder):
        sync_file(Path(place))


def write_whole(path: Path, content: bytes) -> None:
    """Give a file new content in one step: a reader sees the old or the new."""
    fault_point("file.write")
    with aside(path).open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fault_point("file.replace")
    aside(path).replace(path)
    sync_file(path.parent)


def replace_folder(folder: Path) -> None:
    """Put what was written at `aside(folder)` in its place; a reader sees the old, the new, or for an instant none.

    A kill at that instant leaves the old one beside it, and `sweep` puts it back.
    """
    old = folder.parent / f"{REPLACED}{folder.name}"
    remove(old)
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        fault_point("folder.set_aside")
        folder.rename(old)
    fault_point("folder.rename")
    aside(folder).rename(folder)
    fault_point("folder.sync")
    sync_file(folder.parent)
    remove(old)


def prune_folder(folder: Path) -> None:
    """Delete a folder; half of it is never seen under its own name."""
    old = folder.parent / f"{PRUNED}{folder.name}"
    remove(old)
    fault_point("folder.prune")
    folder.rename(old)
    remove(old)


def remove(path: Path) -> None:
    """Delete a file, link or folder if it is there."""
    if path.is_dir() and not path.is_symlink():
        fault_point("folder.remove")
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        fault_point("file.remove")
        path.unlink()


def link(target: Path, place: Path) -> None:
    """Make `place` a relative symbolic link to `target` in one step, whatever stood there."""
    beside = aside(place)
    remove(beside)
    beside.symlink_to(os.path.relpath(target, place.parent))
    if place.is_dir() and not place.is_symlink():
        remove(place)
    fault_point("link.replace")
    beside.replace(place)


def sweep(folder: Path) -> None:
    """Clear up after a run that was killed: put back what lacks its successor, delete what is unfinished.

    Only for a folder that no other process writes to.
    """
    for entry in sorted(folder.glob(f"{REPLACED}*")):
        successor = folder / entry.name.removeprefix(REPLACED)
        if not os.path.lexists(successor):
            entry.rename(successor)
    for entry in sorted(folder.glob(f"{ASIDE}*")):
        remove(entry)

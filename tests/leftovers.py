"""What earlier runs leave in a checkout. The tests run among such files, so that none can depend on a clean tree."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import FrameType

import pytest

MARKER = ".planted_by_the_tests"
MARKER_TEXT = "This folder was made for a test session, which deletes it at its end. It may be deleted at any time.\n"
DAMAGED = "{ this was cut off"

LEFTOVERS: Mapping[str, Mapping[str, str]] = {
    "runs/quickstart": {
        ".quickstart": "", "summary.json": DAMAGED, "samples.md": "", "model/config.json": DAMAGED,
        "sft/config.json": DAMAGED, "reward/config.json": DAMAGED, "kl/metrics.jsonl": DAMAGED,
        "wasserstein/actor/config.json": DAMAGED, "data_cache/sft_0/state.json": DAMAGED, "answers/sft.jsonl": DAMAGED,
    },
    "runs/quickstart_apps": {".quickstart": "", "summary.json": DAMAGED, "ppo/seed-1234/metrics.jsonl": DAMAGED},
    "runs/comparison": {"settings.json": DAMAGED, "results.jsonl": DAMAGED},
    "data_cache": {"ppo_0/state.json": DAMAGED},
    "build/lib/dschat": {"__init__.py": "", "stale.py": "raise ImportError('this is an old build')\n"},
    "dist": {"dschat-0.0.1-py3-none-any.whl": DAMAGED},
    "applications/DeepSpeed-Chat/models/sft": {"config.json": DAMAGED, "metrics.jsonl": DAMAGED},
    "applications/DeepSpeed-Chat/results/summarize/temperature=0.8": {"run_step-7.jsonl": DAMAGED},
}  # fmt: skip
"""By folder: files with their texts. Git ignores all of it."""

ABSENT = pytest.StashKey[list[str]]()
"""Folders that were not there when the session began: none."""


def pytest_sessionstart(session: pytest.Session) -> None:
    """Plant them for this session, and let a request to end it be one that cleans up."""
    root = session.config.rootpath
    if not hasattr(session.config, "workerinput"):  # else a worker of pytest-xdist, whose controller has done it
        plant(root)
        _clean_up_when_ended()
    session.config.stash[ABSENT] = [place for place in LEFTOVERS if not os.path.lexists(root / place)]


def _clean_up_when_ended() -> None:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # forks end as they would without: a pool waits for its workers after it has told them to
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Take them away again."""
    if not hasattr(session.config, "workerinput"):
        clear(session.config.rootpath)


def plant(root: Path) -> None:
    """Make those folders that are not there yet; a folder that is there, whosever it is, stays as it is."""
    for place, texts in LEFTOVERS.items():
        folder = root / place
        if os.path.lexists(folder):
            continue
        for name, text in {MARKER: MARKER_TEXT, **texts}.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)


def clear(root: Path) -> None:
    """Delete the planted folders, also those of a session that was killed; of a folder with other files, the marker."""
    for place, texts in LEFTOVERS.items():
        folder = root / place
        marker = folder / MARKER
        if not marker.is_file() or marker.read_text() != MARKER_TEXT:
            continue
        found = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
        ours = {folder / name: text for name, text in texts.items()}
        if all(path == marker or (path in ours and path.read_bytes() == ours[path].encode()) for path in found):
            for path in found:
                path.unlink()
            _remove_empty(folder, root)
        else:
            marker.unlink()


def _remove_empty(folder: Path, root: Path) -> None:
    """Remove a folder's empty folders, itself and its parents up to the root."""
    inside = sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True)
    for path in (*inside, folder, *folder.parents):
        if path == root:
            return
        with suppress(OSError):  # not empty, or a link
            path.rmdir()

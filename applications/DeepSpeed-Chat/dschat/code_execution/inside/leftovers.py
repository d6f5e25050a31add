"""Ends what a program left running, where nothing forbids it to start processes."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

from dschat.code_execution.inside.switch_user import call_prctl, switch_user

_PR_SET_CHILD_SUBREAPER = 36
_SECONDS_TO_DIE = 0.001


def adopt_orphans() -> None:
    """From now on every orphaned descendant becomes a child of this process, however it detached itself."""
    call_prctl(ctypes.CDLL(None, use_errno=True), _PR_SET_CHILD_SUBREAPER, 1)


def end_leftovers(uid: int | None) -> None:
    """Kill and reap all descendants of this process.

    Args:
        uid: the user id that programs run as and nobody else does; None if they run as this process does.
    """
    while True:
        if uid is None:
            for pid in _descendants(os.getpid()):
                _kill(pid)
        else:
            _kill_all_of(uid)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_SECONDS_TO_DIE)


def _kill_all_of(uid: int) -> None:
    """Only a process of that user can kill them all at once, so that none can fork away."""
    helper = os.fork()
    if helper == 0:
        try:
            switch_user(ctypes.CDLL(None, use_errno=True), uid)
            os.kill(-1, signal.SIGKILL)
        except ProcessLookupError:
            pass
        finally:
            os._exit(0)
    os.waitpid(helper, 0)


def _descendants(pid: int) -> list[int]:
    found = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            direct = [int(word) for word in children.read_text().split()]
        except OSError:  # ended meanwhile
            continue
        found += direct + [further for child in direct for further in _descendants(child)]
    return found


def _kill(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)

"""Requests to stop, and the end of the launcher: a run is asked, finishes its step, and saves."""

from __future__ import annotations

import ctypes
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import torch

from dschat.runtime.distributed import reduce_max

PR_SET_PDEATHSIG = 1
GRACE_SECONDS = 2.0
"""Signals closer together than this are one request: the launcher passes on what the terminal has sent already."""
WATCH_SECONDS = 1.0
LAUNCHER = "deepspeed"

Handler = Callable[[int, FrameType | None], Any] | int | None


class StopRequests:
    """Within the body SIGTERM and SIGINT only ask; a second one, later, ends the process as it always did."""

    def __init__(self) -> None:
        self._asked_at: float | None = None
        self._name = ""
        self._before: dict[int, Handler] = {}

    def agreed(self, device: torch.device) -> bool:
        """Whether any rank was asked to stop; all ranks call it together and get the same answer."""
        return bool(reduce_max(torch.tensor(int(self._asked_at is not None), device=device)).item())

    @property
    def reason(self) -> str:
        """The signal that this rank got, for messages."""
        return self._name or "a signal to another rank"

    def __enter__(self) -> StopRequests:
        # handlers belong to the main thread; elsewhere (a notebook's worker) the process keeps its own
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self._asked_at is None:
            self._asked_at, self._name = now, signal.Signals(number).name
        elif now - self._asked_at > GRACE_SECONDS:
            signal.signal(number, self._before[number])
            os.kill(os.getpid(), number)


def follow_launcher() -> None:
    """Die with the launcher: at once if the process that started this rank ends, as after a request to stop if the
    `deepspeed` command above it does. Linux only; elsewhere nothing happens.
    """
    parent = os.getppid()
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return
    if os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGKILL)
    command = _parent_of(parent)
    if command is not None and LAUNCHER in _command_line(command):
        threading.Thread(target=_stop_after, args=(parent, command), daemon=True).start()


def _stop_after(parent: int, command: int) -> None:
    while _parent_of(parent) == command:
        time.sleep(WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)


def _parent_of(process: int) -> int | None:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return int(fields[1])


def _command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""

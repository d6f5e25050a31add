"""Kills of running inference programs."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any


def kill_at(moments: Sequence[int], run: Callable[..., Any], arguments: tuple[Any, ...], output: Path) -> None:
    """Start a run again and again, and kill each once its journal has more lines than its moment says; tear the last.

    Args:
        moments: rising numbers of lines.
        run: makes `output` when called with `arguments`.
        output: the result file, which must not appear.
    """
    partial = output.with_name(f"{output.name}.partial")
    for moment in moments:
        # forked, so that the libraries need not load again; each child is killed for real
        child = multiprocessing.get_context("fork").Process(target=run, args=arguments)
        child.start()
        end = time.monotonic() + 120
        while _lines_of(partial) <= moment and child.is_alive() and time.monotonic() < end:
            time.sleep(0.0005)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        assert child.exitcode == -signal.SIGKILL
        assert not output.exists() and _lines_of(partial) > moment
        partial.write_bytes(partial.read_bytes()[: -random.randint(1, 30)])  # a line that was torn


def _lines_of(path: Path) -> int:
    """Whole lines of a file, 0 where there is none."""
    return path.read_bytes().count(b"\n") if path.exists() else 0

"""The lock of an output folder: held by one process, freed by its end, missed where there are none."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dschat.errors import UserError
from dschat.runtime import lock
from dschat.runtime.lock import RunLock

HOLDER = """
import sys, time
from pathlib import Path
from dschat.runtime.lock import RunLock
with RunLock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_owner_is_named_and_kill_9_frees_the_folder(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(
        UserError, match=rf"is in use by process {holder.pid} on \S+ since \d{{4}}-.*; wait for it, stop"
    ):
        RunLock(tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    with RunLock(tmp_path):
        assert (tmp_path / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_a_folder_that_nothing_can_be_written_to_is_a_mistake(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()  # stops root too
    with pytest.raises(
        UserError, match=r"--output_dir .* cannot be written to \(Is a directory\); choose another folder"
    ):
        RunLock(tmp_path)


def test_a_file_system_without_locks_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock.fcntl, "flock", refuse)
    with RunLock(tmp_path):
        assert f"{tmp_path} has no locks (No locks available): nothing keeps a second run out" in caplog.text

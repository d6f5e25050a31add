"""Named places at which tests break a run."""

from __future__ import annotations

import errno
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from dschat.runtime import faults
from dschat.runtime.faults import fault_point

PASSES = "from dschat.runtime.faults import fault_point\nfor place in ('a', 'b', 'a'): fault_point(place)"


@pytest.mark.parametrize(
    ("fault", "rank", "status"),
    [
        ("", "0", 0), ("a:2", "0", -signal.SIGKILL), ("a:3", "0", 0), ("b:1:stop", "0", -signal.SIGTERM),
        ("a:2", "1", 0), ("c:1,a:1", "0", -signal.SIGKILL),
    ],
)  # fmt: skip
def test_a_process_dies_at_the_place_that_was_asked_for(fault: str, rank: str, status: int, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    variables = {faults.FAULT: fault, faults.RANK: rank, faults.TRACE: str(trace), "PYTHONPATH": ":".join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", PASSES], env=variables, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    passed = trace.read_text().split()
    expected = {"b:1:stop": ["a", "b"], "c:1,a:1": ["a"]}.get(fault, ["a", "b", "a"])
    assert passed == expected


def test_a_full_disk_is_an_error_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "_passed", faults.Counter())
    monkeypatch.setenv(faults.FAULT, "file.write:1:full")
    with pytest.raises(OSError) as raised:
        fault_point("file.write")
    assert raised.value.errno == errno.ENOSPC
    fault_point("file.write")
    monkeypatch.setenv(faults.FAULT, "file.write:3:burn")
    with pytest.raises(ValueError, match="knows kill, stop, full and hang, got 'burn'"):
        fault_point("file.write")

"""The benchmark of the sandbox: it counts programs that ran, and none that did not."""

from __future__ import annotations

import pytest
from rich.console import Console

import sandbox
from dschat.code_execution.records import Execution, Status
from dschat.code_execution.zygote_process import SandboxFault
from sandbox import _percentile, _run_many, measure, show


def test_programs_run_without_a_sandbox_where_none_is_asked_for() -> None:
    result = measure("none", "warm", programs=3, workers=1)
    assert (result.rung, result.interpreter, result.programs, result.workers) == ("none", "warm", 3, 1)
    assert result.cpu_milliseconds > 0 and 0 < result.median_milliseconds <= result.p99_milliseconds
    assert result.programs_per_second_per_core > 0
    console = Console(width=160, record=True)
    show([result], console)
    assert "none" in console.export_text()


def test_a_program_that_did_not_run_is_no_measurement() -> None:
    wrong = Execution(Status.OK, b"7 3\n", "", cpu_seconds=0.1, wall_seconds=0.1)
    with pytest.raises(SandboxFault, match="the program ended with"):
        _run_many(lambda: wrong, 1)
    right = Execution(Status.OK, sandbox.EXPECTED, "", cpu_seconds=0.1, wall_seconds=0.1)
    assert [cpu for _, cpu in _run_many(lambda: right, 2)] == [0.1, 0.1]


def test_a_percentile_is_one_of_the_values() -> None:
    assert _percentile([3.0, 1.0, 2.0], 0.99) == 3.0
    assert _percentile([float(number) for number in range(100)], 0.5) == 50.0

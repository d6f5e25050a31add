"""The self-test lets no sandbox pass that is slow to deny, lets something out, or cannot run honest programs."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from dschat.code_execution.records import Execution, Job, Limits, Status
from dschat.code_execution.self_test import check
from dschat.code_execution.zygote_process import SandboxFault


def ended(status: Status, output: bytes = b"", message: str = "") -> Execution:
    return Execution(status, output, message, cpu_seconds=0.0, wall_seconds=0.0)


def honest(job: Job) -> Execution:
    """What a good sandbox says to each program of the self-test."""
    if "bytearray" in job.program:
        return ended(Status.MEMORY_LIMIT)
    if "while True" in job.program:
        return ended(Status.TIME_LIMIT)
    if job.function:
        return ended(Status.OK, b"[8]")
    if "contained" in job.program:
        return ended(Status.OK, b"contained\n")
    return ended(Status.OK, b"[1, 5]\n" if "numpy" in job.program else b"6\n")


class Pretended:
    """A sandbox that answers what a function says."""

    description = "pretended"

    def __init__(self, answer: Callable[[Job], Execution]) -> None:
        self.answer = answer

    def run(self, job: Job, limits: Limits) -> Execution:
        return self.answer(job)


def test_a_good_sandbox_passes() -> None:
    check(Pretended(honest), numpy=True)


@pytest.mark.parametrize(
    ("part", "wrong", "said"),
    [
        ("input()", ended(Status.RUNTIME_ERROR, b"", "no threads"), "benign script: .*no threads"),
        ("numpy", ended(Status.RUNTIME_ERROR, b"", "no numpy"), "numpy: .*no numpy"),
        ("bytearray", ended(Status.OK, b"536870912\n"), "takes memory: .*536870912"),
        ("while True", ended(Status.INFRA_ERROR, b"", "busy"), "loops: .*busy"),
        ("os.fork", ended(Status.OK, b"breach: fork\ncontained\n"), "starts processes: .*breach: fork"),
    ],
)
def test_what_fails_is_named(part: str, wrong: Execution, said: str) -> None:
    with pytest.raises(SandboxFault, match=f"failed its self-test, {said}"):
        check(Pretended(lambda job: wrong if part in job.program else honest(job)), numpy=True)


def test_a_canary_that_was_reached_is_noticed_even_if_the_program_says_nothing() -> None:
    def leaky(job: Job) -> Execution:
        if "os.O_WRONLY" not in job.program and "for path in [" in job.program:
            place = job.program.split("for path in [")[1].split("'")[1]
            Path(place).touch(mode=os.O_CREAT)
        return honest(job)

    with pytest.raises(SandboxFault, match="a canary did not survive"):
        check(Pretended(leaky), numpy=True)


def test_where_nothing_is_contained_attacks_are_not_tried() -> None:
    asked: list[str] = []

    def answer(job: Job) -> Execution:
        asked.append(job.program)
        return honest(job)

    check(Pretended(answer), numpy=False, attacks=False)
    assert not any("breaches" in program for program in asked)

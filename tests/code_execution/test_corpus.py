"""Hostile programs are contained and honest ones pass, on every rung that this machine has, as root and as a user."""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from tests.code_execution.corpus import HOSTILE, load
from tests.code_execution.users import RUNGS, USERS, run_as, why_not

HOSTILE_PROGRAMS, HONEST_PROGRAMS = load(*HOSTILE), load("honest")
CASES = [pytest.param(rung, user, id=f"{rung}-{user.replace(' ', '-')}") for rung in RUNGS for user in USERS]
SIZE_OF_A_SANDBOX = {"bwrap": 2, "landlock": 1}  # processes: bubblewrap keeps one outside
MEBIBYTES_GROWN = 64


@functools.cache
def results(rung: str, user: str, *arguments: str) -> dict[str, Any]:
    """What the driver says, see driver.py."""
    if reason := why_not(rung, user):
        pytest.skip(reason)
    run = run_as(user, "-m", "tests.code_execution.driver", "--mode", rung, *arguments)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


def of_program(rung: str, user: str, name: str) -> dict[str, Any]:
    programs = results(rung, user, "hostile", "honest")["programs"]
    if name not in programs:
        pytest.skip("does not concern this machine")
    return programs[name]


@pytest.mark.parametrize(("rung", "user"), CASES)
@pytest.mark.parametrize("name", HOSTILE_PROGRAMS)
def test_a_hostile_program_is_contained(rung: str, user: str, name: str) -> None:
    program, found = HOSTILE_PROGRAMS[name], of_program(rung, user, name)
    assert found["damage"] == []
    assert found["status"] in program.expected, found
    assert program.output is None or found["output"] == program.output
    assert found["wall_seconds"] < program.limits.wall_seconds + 1


@pytest.mark.parametrize(("rung", "user"), CASES)
@pytest.mark.parametrize("name", HONEST_PROGRAMS)
def test_an_honest_program_passes(rung: str, user: str, name: str) -> None:
    program, found = HONEST_PROGRAMS[name], of_program(rung, user, name)
    assert (found["status"], found["message"]) == ("ok", "")
    assert program.output is not None
    assert found["output"].encode("latin-1").decode() == program.output


@pytest.mark.parametrize(("rung", "user"), CASES)
def test_nothing_is_left_of_all_these_programs(rung: str, user: str) -> None:
    found = results(rung, user, "hostile", "honest")
    assert found["processes_while_idle"] == found["sandboxes"] * SIZE_OF_A_SANDBOX[rung]
    assert found["processes_after"] == []
    assert found["descriptors_left"] == 0
    assert found["grown_mebibytes"] < MEBIBYTES_GROWN


@pytest.mark.parametrize("user", USERS)
def test_the_checks_see_a_breach_where_there_is_no_sandbox(user: str) -> None:
    programs = results("none", user, "--teeth", "hostile")["programs"]
    assert set(programs) == {name for name, program in HOSTILE_PROGRAMS.items() if "teeth" in program.headers}
    assert {name: found["damage"] for name, found in programs.items() if not found["damage"]} == {}
    from_outside = {"called", "was written", "was changed", "a secret was printed", "the neighbour"}
    words = " ".join(word for found in programs.values() for word in found["damage"])
    seen = {kind for kind in from_outside if kind in words}
    assert seen == from_outside


@pytest.mark.parametrize("user", USERS)
def test_honest_programs_pass_without_a_sandbox_too(user: str) -> None:
    programs = results("none", user, "honest")["programs"]
    assert {name: found for name, found in programs.items() if found["status"] != "ok"} == {}


@pytest.mark.parametrize("user", USERS)
def test_daemons_are_ended_even_without_a_sandbox(user: str) -> None:
    programs = results("none", user, "--teeth", "hostile")["programs"]
    assert programs["leaves_a_daemon"]["status"] == "ok"
    assert not [word for found in programs.values() for word in found["damage"] if "survived" in word]

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from dschat.code_execution import run_tests
from dschat.code_execution.apps_tests import AppsTests, GradingRules, Outcome, TestReport, grade, read_tests, score_of
from dschat.code_execution.records import Execution, Job, Limits, Sandbox, Status
from dschat.code_execution.sandbox import open_sandbox
from tests.code_execution.graded_programs import ADD, BROKEN, HONEST, SUM, Case

FAST = {"time_limit": 0.5, "memory_limit": 2**29}
ADDER = "print(sum(map(int, input().split())))"


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


class ScriptedSandbox:
    """Gives prepared executions, one for each run."""

    description = "scripted"

    def __init__(self, executions: Sequence[Execution]) -> None:
        self.executions = list(executions)
        self.jobs: list[Job] = []

    def run(self, job: Job, limits: Limits) -> Execution:
        self.jobs.append(job)
        return self.executions.pop(0)


def execution(status: Status = Status.OK, output: bytes = b"", *, cpu: float = 0.1, wall: float = 0.1) -> Execution:
    return Execution(status, output, "" if status is Status.OK else "why", cpu_seconds=cpu, wall_seconds=wall)


def test_the_corpus_is_large_and_varied() -> None:
    assert len(HONEST) >= 60
    assert {outcome for case in BROKEN for outcome in case.expected()} >= {
        outcome.value for outcome in Outcome if outcome is not Outcome.INFRA_ERROR
    }
    names = [case.name for case in HONEST + BROKEN]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", HONEST + BROKEN, ids=lambda case: case.name)
def test_each_test_of_a_program_has_the_right_outcome(case: Case, sandbox: Sandbox) -> None:
    report = run_tests(case.program, case.tests, sandbox=sandbox, **FAST)
    assert [outcome.value for outcome in report.outcomes] == case.expected(), report.messages
    assert report.score == pytest.approx(case.score)
    assert report.ungraded == ""
    assert report.compile_error == ("compile_error" in case.expected())
    assert report.pass_rate == case.expected().count("pass") / len(case.expected())
    for outcome, message in zip(report.outcomes, report.messages, strict=True):
        assert (message == "") == (outcome is Outcome.PASS)
        assert "\n" not in message


def test_the_published_leniencies_are_there_for_comparison_only(sandbox: Sandbox) -> None:
    differing = [
        case.name
        for case in BROKEN
        if set(case.expected()) <= {"pass", "wrong"}
        and run_tests(case.program, case.tests, sandbox=sandbox, comparison="reference", **FAST).score
        > case.score + 1e-9
    ]
    assert differing == [
        "two numbers for one",
        "padded with zeros",
        "lines in reverse",
        "lines repeated",
        "tokens in any order",
        "tokens each once",
        "float rounded too far",
        "returns its first element",
        "long number off by one",  # both are infinite as floats
    ]


def test_a_sandbox_of_its_own_is_opened_and_closed() -> None:
    assert run_tests(ADDER, SUM).score == 1.0


@pytest.mark.parametrize(
    ("outcomes", "published", "all_or_nothing"),
    [
        (["pass", "pass"], 1.0, 1.0),
        (["pass", "wrong"], 0.35, 0.0),
        (["wrong", "wrong"], -0.3, 0.0),
        (["pass", "runtime_error"], -0.6, 0.0),
        (["pass", "time_limit"], -0.6, 0.0),
        (["wrong", "memory_limit"], -0.6, 0.0),
        (["output_limit", "pass"], -0.6, 0.0),
        (["compile_error"], -1.0, 0.0),
        (["no_function"], -1.0, 0.0),
    ],
)
def test_score_of_outcomes(outcomes: list[str], published: float, all_or_nothing: float) -> None:
    found = [Outcome(name) for name in outcomes]
    assert score_of(found, "published") == pytest.approx(published)
    assert score_of(found, "all_or_nothing") == all_or_nothing


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ({}, "no lists of inputs and outputs"),
        ({"inputs": "1", "outputs": ["2"]}, "no lists of inputs and outputs"),
        ({"inputs": [], "outputs": []}, "no tests"),
        ({"inputs": ["1"], "outputs": []}, "1 inputs but 0 outputs"),
        ({"inputs": ["1"], "outputs": [{"a": 1}]}, "must be text, not dict"),
        ({"inputs": [None], "outputs": ["1"]}, "must be text, not NoneType"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": "a b"}, "which is no name"),
        ({"inputs": [[1]], "outputs": [1], "fn_name": 3}, "which is no name"),
    ],
)
def test_unusable_tests_are_no_reward(tests: dict[str, Any], reason: str) -> None:
    report = grade(ADDER, tests, GradingRules(), ScriptedSandbox([]))
    assert report.outcomes == ()
    assert math.isnan(report.score)
    assert math.isnan(report.pass_rate)
    assert reason in report.ungraded


def test_inputs_and_outputs_may_be_lines_and_numbers() -> None:
    tests = read_tests({"inputs": [["1", "2"], 3], "outputs": [["a", "b"], 4.5]})
    assert tests == AppsTests(None, ("1\n2", "3"), ("a\nb", "4.5"))


def test_arguments_of_a_call_are_a_list() -> None:
    tests = read_tests({"inputs": [[1, "a"], "word"], "outputs": [1, 2], "fn_name": "f"})
    assert tests == AppsTests("f", ('[1, "a"]', '["word"]'), (1, 2))


def test_one_result_that_is_not_wrapped_shows_that_none_is() -> None:
    tests = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], 7]}
    answers = ScriptedSandbox([execution(output=b"3"), execution(output=b"7")])
    assert grade("x", tests, GradingRules(), answers).outcomes == (Outcome.WRONG, Outcome.PASS)


def test_a_fault_of_the_sandbox_is_tried_again() -> None:
    answers = ScriptedSandbox(
        [execution(Status.INFRA_ERROR), *(execution(output=f"{n}".encode()) for n in SUM["outputs"])]
    )
    assert grade(ADDER, SUM, GradingRules(), answers).score == 1.0
    assert [job.stdin for job in answers.jobs] == [SUM["inputs"][0], *SUM["inputs"]]


def test_a_fault_that_lasts_is_never_a_reward() -> None:
    answers = ScriptedSandbox([execution(output=b"3"), execution(Status.INFRA_ERROR), execution(Status.INFRA_ERROR)])
    report = grade(ADDER, SUM, GradingRules(), answers)
    assert math.isnan(report.score)
    assert math.isnan(report.pass_rate)
    assert report.outcomes == (Outcome.INFRA_ERROR,)
    assert report.ungraded == "why"
    assert answers.executions == []


@pytest.mark.parametrize("spent", [{"cpu": 4.5, "wall": 4.5}, {"cpu": 0.0, "wall": 20.0}])
def test_tests_beyond_the_total_time_are_out_of_time(spent: dict[str, float]) -> None:
    rules = GradingRules(time_limit=1.0)
    assert (rules.total_cpu_seconds, rules.total_wall_seconds) == (8.0, 32.0)
    answers = ScriptedSandbox([execution(output=b"3", **spent), execution(output=b"7", **spent)])
    report = grade(ADDER, SUM, rules, answers)
    assert report.outcomes == (Outcome.PASS, Outcome.PASS, Outcome.TIME_LIMIT, Outcome.TIME_LIMIT)
    assert report.score == -0.6
    assert report.cpu_seconds == 2 * spent["cpu"]


@pytest.mark.parametrize("status", [Status.COMPILE_ERROR, Status.NO_FUNCTION])
def test_a_fault_of_the_whole_program_is_found_once(status: Status) -> None:
    answers = ScriptedSandbox([execution(status)])
    report = grade("x", ADD, GradingRules(), answers)
    assert report.outcomes == (Outcome(status.value),) * 4
    assert len(answers.jobs) == 1


def test_only_so_many_tests_are_run_evenly_spread() -> None:
    tests = {"inputs": [f"{n}" for n in range(10)], "outputs": [f"{n}" for n in range(10)]}
    answers = ScriptedSandbox([execution(output=b"x")] * 4)
    report = grade("x", tests, GradingRules(max_tests=4), answers)
    assert [job.stdin for job in answers.jobs] == ["0", "2", "5", "7"]
    assert len(report.outcomes) == 4
    everything = ScriptedSandbox([execution(output=b"x")] * 10)
    assert len(grade("x", tests, GradingRules(max_tests=0), everything).outcomes) == 10


def test_the_sandbox_sees_program_and_input_but_never_what_is_expected() -> None:
    answers = ScriptedSandbox([execution(output=b"3")] * 4)
    grade("program", ADD | {"outputs": ["secret"] * 4}, GradingRules(time_limit=2.0, memory_limit=2**28), answers)
    for job, arguments in zip(answers.jobs, ADD["inputs"], strict=True):
        assert "secret" not in str(dataclasses.asdict(job))
        assert (job.program, job.function, job.arguments) == ("program", "add", str(arguments))


@pytest.mark.parametrize("case", [HONEST[0], BROKEN[1]], ids=lambda case: case.name)
def test_a_report_survives_json(case: Case, sandbox: Sandbox) -> None:
    report = run_tests(case.program, case.tests, sandbox=sandbox)
    assert TestReport.from_json(report.as_json()) == report

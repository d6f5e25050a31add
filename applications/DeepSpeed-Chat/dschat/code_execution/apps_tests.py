"""APPS tests of a program: every test on its own in the sandbox, outcomes, and the score that PPO learns from.

Only the program, one test's input and the limits go into the sandbox; what it prints or returns comes out as bytes and
is compared here. So no program can read, patch or outlive its judge.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Literal

from dschat.code_execution.comparison import (
    Comparison,
    MalformedOutput,
    parse_result,
    published_text_matches,
    text_difference,
    value_difference,
)
from dschat.code_execution.long_integers import digits, dump_json
from dschat.code_execution.sandbox import Execution, Job, Limits, Sandbox, Status, open_sandbox

RewardShape = Literal["published", "all_or_nothing"]

COMPILE_ERROR_SCORE = -1.0
RUNTIME_ERROR_SCORE = -0.6
NOTHING_PASSED_SCORE = -0.3
EVERYTHING_PASSED_SCORE = 1.0

TOTAL_TIME_FACTOR = 8
"""All tests of a program together may take this many times the limit of one; the published 11 s are 2.75 times."""


class Outcome(StrEnum):
    """What became of one test."""

    PASS = "pass"
    WRONG = "wrong"
    RUNTIME_ERROR = "runtime_error"
    """An exception, a crash, or a result that is no JSON."""
    TIME_LIMIT = "time_limit"
    MEMORY_LIMIT = "memory_limit"
    OUTPUT_LIMIT = "output_limit"
    COMPILE_ERROR = "compile_error"
    NO_FUNCTION = "no_function"
    """The program compiles but does not define the function that is called."""
    INFRA_ERROR = "infra_error"
    """The sandbox failed, twice; says nothing about the program."""


_OF_STATUS = {
    Status.COMPILE_ERROR: Outcome.COMPILE_ERROR,
    Status.RUNTIME_ERROR: Outcome.RUNTIME_ERROR,
    Status.NO_FUNCTION: Outcome.NO_FUNCTION,
    Status.TIME_LIMIT: Outcome.TIME_LIMIT,
    Status.MEMORY_LIMIT: Outcome.MEMORY_LIMIT,
    Status.OUTPUT_LIMIT: Outcome.OUTPUT_LIMIT,
    Status.INFRA_ERROR: Outcome.INFRA_ERROR,
}
_OF_THE_PROGRAM = {Outcome.COMPILE_ERROR, Outcome.NO_FUNCTION}
"""The same for all tests, so that the first one tells."""


@dataclass(frozen=True)
class GradingRules:
    """Limits and judgement, in plain values."""

    time_limit: float = Limits.cpu_seconds
    """CPU seconds of one test; all of a program's tests together get `TOTAL_TIME_FACTOR` times as much."""
    memory_limit: int = Limits.memory_bytes
    """Bytes of address space of one test."""
    max_tests: int = 100
    """Most tests that are run of a problem, spread evenly over them; 0: all."""
    comparison: Comparison = "strict"
    """"reference" adds the published leniencies, which pay for wrong answers."""
    reward_shape: RewardShape = "published"

    @property
    def limits(self) -> Limits:
        """Of one test."""
        return Limits(cpu_seconds=self.time_limit, memory_bytes=self.memory_limit)

    @property
    def total_cpu_seconds(self) -> float:
        """CPU seconds of all tests of a program; the next test is not started beyond them."""
        return TOTAL_TIME_FACTOR * self.time_limit

    @property
    def total_wall_seconds(self) -> float:
        """The same by the clock, for programs that sleep."""
        return TOTAL_TIME_FACTOR * self.limits.wall_seconds


@dataclass(frozen=True)
class TestReport:
    """What the tests say about one program."""

    __test__ = False  # pytest would collect it by its name

    outcomes: tuple[Outcome, ...]
    """One for each test that counts; [] where there is no score because the problem has no usable tests."""
    messages: tuple[str, ...]
    """For each outcome one line about it, "" for a pass."""
    score: float
    """-1 to 1; NaN where the program could not be graded, which must never become a reward."""
    cpu_seconds: float = 0.0
    """Used by the program in all its tests."""
    ungraded: str = ""
    """Why there is no score, "" if there is one."""

    @property
    def compile_error(self) -> bool:
        """Whether the program does not compile."""
        return Outcome.COMPILE_ERROR in self.outcomes

    @property
    def pass_rate(self) -> float:
        """Share of the tests that pass, 0 to 1; NaN where the program could not be graded."""
        return math.nan if self.ungraded else self.outcomes.count(Outcome.PASS) / len(self.outcomes)

    def as_json(self) -> dict[str, Any]:
        """The report as what `json` can write."""
        return asdict(self)

    @staticmethod
    def from_json(content: Mapping[str, Any]) -> TestReport:
        """The report that `as_json` was made of."""
        outcomes = tuple(Outcome(name) for name in content["outcomes"])
        return TestReport(**(dict(content) | {"outcomes": outcomes, "messages": tuple(content["messages"])}))


@dataclass(frozen=True)
class AppsTests:
    """The tests of one problem: N inputs and expected outputs."""

    function: str | None
    """Name of the function that is called; None for a script that reads standard input."""
    inputs: tuple[str, ...]
    """Standard input, or the JSON list of the call's arguments."""
    expected: tuple[Any, ...]
    """Text to be printed, or the JSON value to be returned."""

    @property
    def wrapped(self) -> bool:
        """Whether each expected result may stand in a list of its own, as the published data has it in some problems.

        One result that is no list of one shows that the problem does not wrap, so that `[v]` is never taken for `v`.
        """
        return all(isinstance(value, list) and len(value) == 1 for value in self.expected)

    def at_most(self, count: int) -> AppsTests:
        """`count` of the tests, evenly spread; all of them where count is 0 or not below their number."""
        total = len(self.inputs)
        if not count or count >= total:
            return self
        kept = [number * total // count for number in range(count)]
        return AppsTests(self.function, tuple(self.inputs[i] for i in kept), tuple(self.expected[i] for i in kept))


class UnusableTests(ValueError):
    """Tests that cannot be run; the text says why."""


def read_tests(input_output: Mapping[str, Any]) -> AppsTests:
    """The tests of an APPS problem.

    Args:
        input_output: the decoded `input_output` column: lists `inputs` and `outputs` of one length and, for problems
            that ask for a function, its name `fn_name`. Standard input and output may be lists of lines.
    Raises:
        UnusableTests: anything else, or no test at all.
    """
    inputs, outputs = input_output.get("inputs"), input_output.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise UnusableTests("the problem has no lists of inputs and outputs")
    if len(inputs) != len(outputs):
        raise UnusableTests(f"the problem has {len(inputs)} inputs but {len(outputs)} outputs")
    if not inputs:
        raise UnusableTests("the problem has no tests")
    function = input_output.get("fn_name")
    if function is None:
        return AppsTests(None, tuple(map(_as_text, inputs)), tuple(map(_as_text, outputs)))
    if not isinstance(function, str) or not function.isidentifier():
        raise UnusableTests(f"the function's name is {function!r}, which is no name")
    arguments = (value if isinstance(value, list) else [value] for value in inputs)
    return AppsTests(function, tuple(map(dump_json, arguments)), tuple(outputs))


def run_tests(
    program: str,
    input_output: Mapping[str, Any],
    *,
    time_limit: float = GradingRules.time_limit,
    memory_limit: int = GradingRules.memory_limit,
    max_tests: int = GradingRules.max_tests,
    comparison: Comparison = GradingRules.comparison,
    reward_shape: RewardShape = GradingRules.reward_shape,
    sandbox: Sandbox | None = None,
) -> TestReport:
    """Run a problem's tests on a program.

    Args:
        program: source text; see `extract_program`.
        input_output: see `read_tests`; what is unusable gives a report without a score.
        time_limit: CPU seconds of one test.
        memory_limit: bytes of one test.
        max_tests, comparison, reward_shape: see `GradingRules`.
        sandbox: where to run; default: one of its own, as `open_sandbox` finds it.
    """
    rules = GradingRules(time_limit, memory_limit, max_tests, comparison, reward_shape)
    if sandbox is not None:
        return grade(program, input_output, rules, sandbox)
    with open_sandbox() as own:
        return grade(program, input_output, rules, own)


def grade(program: str, input_output: Mapping[str, Any], rules: GradingRules, sandbox: Sandbox) -> TestReport:
    """Run a problem's tests on a program, one after the other.

    A test that fails, crashes or runs out of time hides no other. A program that is empty, does not compile, or lacks
    the function, fails all tests with the first. When the total time is used up the tests that are left count as out of
    time.

    Args:
        program: source text.
        input_output: see `read_tests`.
        rules: limits and judgement.
        sandbox: where to run.
    """
    try:
        tests = read_tests(input_output).at_most(rules.max_tests)
    except UnusableTests as error:
        return TestReport((), (), math.nan, ungraded=str(error))
    if not program.strip():
        return _all_alike(Outcome.COMPILE_ERROR, "the answer is empty", tests, rules)
    outcomes: list[Outcome] = []
    messages: list[str] = []
    cpu_seconds = wall_seconds = 0.0
    for number in range(len(tests.inputs)):
        if cpu_seconds >= rules.total_cpu_seconds or wall_seconds >= rules.total_wall_seconds:
            left = len(tests.inputs) - number
            outcomes += [Outcome.TIME_LIMIT] * left
            messages += ["not run: the program's time for all tests is used up"] * left
            break
        execution = _run(program, tests, number, rules.limits, sandbox)
        cpu_seconds += execution.cpu_seconds
        wall_seconds += execution.wall_seconds
        outcome, message = _judge(execution, tests, number, rules.comparison)
        if outcome is Outcome.INFRA_ERROR:
            return TestReport((outcome,), (message,), math.nan, cpu_seconds, ungraded=message)
        if outcome in _OF_THE_PROGRAM:
            return _all_alike(outcome, message, tests, rules, cpu_seconds)
        outcomes.append(outcome)
        messages.append(message)
    return TestReport(tuple(outcomes), tuple(messages), score_of(outcomes, rules.reward_shape), cpu_seconds)


def _all_alike(
    outcome: Outcome, message: str, tests: AppsTests, rules: GradingRules, cpu_seconds: float = 0.0
) -> TestReport:
    """The report of a program that fares the same in all tests."""
    outcomes = (outcome,) * len(tests.inputs)
    return TestReport(outcomes, (message,) * len(outcomes), score_of(outcomes, rules.reward_shape), cpu_seconds)


def score_of(outcomes: Sequence[Outcome], shape: RewardShape) -> float:
    """The reward of a program whose tests ended like this.

    Args:
        outcomes: at least one, none of them INFRA_ERROR.
        shape: "published" (APPS with CodeRL's levels, as in the WPR code): -1 if the program does not compile or lacks
            the function; else -0.6 if any test ended in an error or at a limit; else -0.3 + 1.3 times the share of
            tests that pass. "all_or_nothing": 1 if all pass, else 0.
    """
    counts = Counter(outcomes)
    if shape == "all_or_nothing":
        return float(counts[Outcome.PASS] == len(outcomes))
    if counts.keys() & _OF_THE_PROGRAM:
        return COMPILE_ERROR_SCORE
    if counts.keys() - {Outcome.PASS, Outcome.WRONG}:
        return RUNTIME_ERROR_SCORE
    share = counts[Outcome.PASS] / len(outcomes)
    return NOTHING_PASSED_SCORE + (EVERYTHING_PASSED_SCORE - NOTHING_PASSED_SCORE) * share


def _run(program: str, tests: AppsTests, number: int, limits: Limits, sandbox: Sandbox) -> Execution:
    """Run one test; once more where the sandbox failed."""
    if tests.function is None:
        job = Job(program, stdin=tests.inputs[number])
    else:
        job = Job(program, function=tests.function, arguments=tests.inputs[number])
    execution = sandbox.run(job, limits)
    return sandbox.run(job, limits) if execution.status is Status.INFRA_ERROR else execution


def _judge(execution: Execution, tests: AppsTests, number: int, comparison: Comparison) -> tuple[Outcome, str]:
    """Outcome of one test and a line about it."""
    if execution.status is not Status.OK:
        return _OF_STATUS[execution.status], execution.message
    expected = tests.expected[number]
    if tests.function is None:
        difference = text_difference(execution.output, expected)
        if comparison == "reference" and published_text_matches(execution.output, expected):
            difference = None
        return (Outcome.WRONG, difference) if difference else (Outcome.PASS, "")
    try:
        value = parse_result(execution.output)
    except MalformedOutput as error:
        return Outcome.RUNTIME_ERROR, str(error)
    difference = value_difference(value, expected, may_be_wrapped=tests.wrapped)
    if comparison == "reference" and isinstance(expected, list) and expected:
        difference = difference and value_difference(value, expected[0])
    return (Outcome.WRONG, difference) if difference else (Outcome.PASS, "")


def _as_text(value: Any) -> str:
    """Standard input or output as one text: a text itself, a list of lines, or a number."""
    match value:
        case str():
            return value
        case bool() | None | dict():
            raise UnusableTests(f"standard input and output must be text, not {type(value).__name__}")
        case int():
            return digits(value)
        case float():
            return str(value)
        case list():
            return "\n".join(map(_as_text, value))
    raise UnusableTests(f"standard input and output must be text, not {type(value).__name__}")

"""The inference program for programming problems, on a toy model, the built-in problems and programs of known worth."""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from dschat.answering import with_unit_tests
from dschat.answering.answering import Answer, answer_all
from dschat.answering.apps_options import parse_apps_options
from dschat.answering.journal import Journal, settings_path
from dschat.answering.with_unit_tests import run
from dschat.code_execution import GradingPool, TestReport
from dschat.code_execution.pool import ungraded
from dschat.errors import UserError
from tests.answering.helpers import APPS_PROGRAM, apps_output, apps_words, make_models, write_problems
from tests.answering.kills import kill_at
from tests.code_execution.graded_programs import BROKEN, HONEST, Case
from tests.judging.helpers import read_rows, run_program

KEYS = {"prompt", "response", "reward", "outcomes", "difficulty", "id", "sample", "ungraded"}
# programs that the answer's text holds as they are: no Markdown, nothing before the code
NAMES = (
    *("sorted", "method of Solution", "truth value", "half right", "constant", "lines in reverse", "lone surrogate"),
    *("raises in one test", "segmentation fault", "os.abort", "creates a file", "prints without end", "bare exit()"),
    *("syntax error", "other name", "returns what equals everything", "returns a list of itself"),
    *("walks the frames to the tests", "patches the judge", "swallows every exception"),
)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    return folder


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    by_name = {case.name: case for case in [*HONEST, *BROKEN]}
    return [by_name[name] for name in NAMES]


def run_here(folder: Path, *more: object) -> str:
    """The program without a new process."""
    return run(parse_apps_options([str(word) for word in apps_words(folder, *more)]))


def summary_of(output: Path) -> dict[str, Any]:
    return json.loads(settings_path(output).read_text())["summary"]


def test_command_writes_records_with_outcomes_and_closing_lines(models):
    # the flag that the published command needs is taken and not read
    done = run_program(APPS_PROGRAM, *apps_words(models, "--num-return-sequences", 2, "--reward-model", "a/b"))
    assert done.returncode == 0, done.stderr
    rows = read_rows(apps_output(models))
    assert len(rows) == 18
    assert all(set(row) == KEYS for row in rows)
    assert all(row["prompt"].startswith("### Problem:\n") and row["prompt"].endswith("### Response:\n") for row in rows)
    assert [row["sample"] for row in rows] == [0, 1] * 9
    assert [row["id"] for row in rows[::2]] == [row["id"] for row in rows[1::2]]
    assert len({row["id"] for row in rows}) == 9
    assert sum(a["response"] != b["response"] for a, b in zip(rows[::2], rows[1::2], strict=True)) > 5
    assert {row["difficulty"] for row in rows} <= {"introductory", "interview", "competition"}
    assert all(len(row["outcomes"]) == 8 and row["reward"] is not None for row in rows)
    for words_of_lines in ("18 programs for 9 problems", "mean reward", "strict accuracy", "pass@1", "mean length"):
        assert words_of_lines in done.stdout
    assert "programs are graded by" in done.stderr
    assert not list(apps_output(models).parent.glob("*.partial"))


def test_programs_get_what_their_tests_say_and_hostile_ones_stop_nothing(models, cases, tmp_path):
    data, output = write_problems(tmp_path / "problems", cases), tmp_path / "out.jsonl"
    more = ["--data-path", data, "--dataset", "apps", "--ref-scores", "--num-samples", 100, "--output", output]
    # the limit is low for the program that loops; "prints without end" needs a little CPU time to reach its own
    lines = run_here(models, *more, "--batch-size", 4, "--test-time-limit", 1.5)
    rows = {int(row["id"]) - 100: row for row in read_rows(output)}
    assert len(rows) == len(cases)
    for number, case in enumerate(cases):
        assert rows[number]["outcomes"] == case.expected(), case.name
        assert rows[number]["reward"] == pytest.approx(case.score, abs=1e-6), case.name
        assert rows[number]["response"] == case.program
    shares = [case.expected().count("pass") / len(case.expected()) for case in cases]
    rates = summary_of(output)["pass_rates"]
    assert rates["all"]["accuracy"]["mean"] == pytest.approx(fmean(shares))
    assert rates["all"]["strict_accuracy"]["mean"] == pytest.approx(fmean(share == 1 for share in shares))
    assert rates["interview"]["accuracy"]["mean"] == pytest.approx(fmean(shares[1::2]))
    assert rates["introductory"]["accuracy"]["problems"] == len(shares[::2])
    assert f"{100 * fmean(shares):.1f} (" in lines


def test_solutions_of_the_built_in_problems_are_all_right(models, tmp_path):
    more = ["--ref-scores", "--num-samples", 40, "--output", tmp_path / "out.jsonl", "--max-tests", 2]
    run_here(models, *more)
    rates = summary_of(tmp_path / "out.jsonl")["pass_rates"]
    assert [each["strict_accuracy"]["mean"] for each in rates.values()] == [1.0] * len(rates)
    assert rates["all"]["strict_accuracy"]["problems"] == 40


def test_answers_depend_on_problem_sample_and_seed_alone(models, tmp_path):
    files = {}
    for name, more in {
        "one": ["--batch-size", 1],
        "four": ["--batch-size", 4],
        "fewer answers": ["--batch-size", 5, "--num-return-sequences", 1],
        "fewer problems": ["--batch-size", 4, "--num-samples", 4],
        "other seed": ["--batch-size", 4, "--seed", 1],
    }.items():
        output = tmp_path / f"{name}.jsonl"
        run_here(models, "--num-return-sequences", 3, "--max-tests", 1, *more, "--output", output)
        files[name] = {(row["id"], row["sample"]): row for row in read_rows(output)}
    assert files["one"] == files["four"]
    assert len(files["one"]) == 27
    for name, count in (("fewer answers", 9), ("fewer problems", 12)):
        assert len(files[name]) == count
        assert all(files["four"][place] == row for place, row in files[name].items())
    changed = [row["response"] != files["four"][place]["response"] for place, row in files["other seed"].items()]
    assert sum(changed) > 20


def test_killed_twice_and_rerun_ends_byte_equal(models, tmp_path, caplog):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    common = ["--batch-size", 2, "--num-return-sequences", 2, "--max-tests", 1, "--max-new-tokens", 30]
    run_here(models, *common, "--output", whole)
    arguments = [*common, "--output", killed]
    moments = sorted(random.Random(time.time_ns()).sample(range(1, 14), 2))
    kill_at(moments, run_here, (models, *arguments), killed)
    caplog.set_level(logging.INFO)
    run_here(models, *arguments)
    assert killed.read_bytes() == whole.read_bytes(), moments
    run_here(models, *arguments)
    assert "finished already" in caplog.text
    with pytest.raises(UserError, match=r"test_time_limit 4\.0 instead of 3\.0"):
        run_here(models, *arguments, "--test-time-limit", 3)


class FaultyPool(GradingPool):
    """Grades as ever, but loses every program that has a word in it."""

    def submit(self, jobs: Sequence[tuple[str, Mapping[str, Any]]]) -> Any:
        real = super().submit(jobs)

        class Grading:
            def results(self) -> list[TestReport]:
                reports = real.results()
                return [
                    ungraded("the sandbox broke") if "Solution" in program else report
                    for (program, _), report in zip(jobs, reports, strict=True)
                ]

        return Grading()


def test_fault_of_the_sandbox_is_no_reward_and_is_counted(models, cases, tmp_path, monkeypatch):
    monkeypatch.setattr(with_unit_tests, "open_grading_pool", lambda config, batch_seconds: FaultyPool(1))
    testless = Case("no tests", "print(1)", {"inputs": [], "outputs": []}, [], 0.0)
    data = write_problems(tmp_path / "problems", [*cases[:3], testless])
    output = tmp_path / "out.jsonl"
    lines = run_here(models, "--data-path", data, "--dataset", "apps", "--ref-scores", "--output", output)
    rows = {int(row["id"]) - 100: row for row in read_rows(output)}
    assert [rows[number]["reward"] for number in range(4)] == [1.0, None, 1.0, None]
    assert [rows[number]["outcomes"] for number in (1, 3)] == [["infra_error"], []]
    assert rows[1]["ungraded"] == "the sandbox broke" and "no tests" in rows[3]["ungraded"]
    assert summary_of(output)["ungraded"] == {"sandbox": 1, "tests": 1}
    assert summary_of(output)["pass_rates"]["all"]["strict_accuracy"] | {"low": 0, "high": 0} == {
        "mean": 1.0, "low": 0, "high": 0, "problems": 2,
    }  # fmt: skip
    assert "1 not graded because the sandbox failed" in lines


class Source:
    """Answers that say what they are."""

    title = "answering"
    lengths = (1, 1, 1)

    def __init__(self, events: list[str]) -> None:
        self.events = events

    def answers(self, numbers: Sequence[int]) -> list[Answer]:
        self.events += [f"answer {number}" for number in numbers]
        return [Answer(str(number), 1) for number in numbers]


class LateJudge:
    """Notes when judging starts and when it is waited for."""

    def __init__(self, events: list[str], batches_ahead: int) -> None:
        self.events = events
        self.batches_ahead = batches_ahead

    def begin(self, numbers: Sequence[int], answers: Sequence[Answer]) -> Callable[[], list[dict[str, Any]]]:
        self.events += [f"begin {answer.text}" for answer in answers]

        def wait() -> list[dict[str, Any]]:
            self.events += [f"wait {number}" for number in numbers]
            return [{"number": number} for number in numbers]

        return wait


@pytest.mark.parametrize(
    ("batches_ahead", "events"),
    [
        (0, "answer 0,begin 0,wait 0,answer 1,begin 1,wait 1,answer 2,begin 2,wait 2"),
        (1, "answer 0,begin 0,answer 1,begin 1,wait 0,answer 2,begin 2,wait 1,wait 2"),
    ],
)
def test_programs_run_while_the_next_batch_is_answered(batches_ahead, events, tmp_path):
    found: list[str] = []
    with Journal(tmp_path / "out.jsonl", {}) as journal:
        answer_all(Source(found), LateJudge(found, batches_ahead), journal, batch_size=1)
        assert [journal.finished[number].record for number in range(3)] == [{"number": n} for n in range(3)]
    assert ",".join(found) == events


def test_default_place_and_sampling_are_the_published_ones(tmp_path):
    words = ["--proj-path", str(tmp_path), "--model", "runs/wpr/step-9"]
    options = parse_apps_options(words)
    assert options.output == tmp_path / "results/apps/temperature=0.8/wpr_step-9_2000.jsonl"
    assert (options.top_k, options.max_new_tokens, options.num_return_sequences) == (5, 512, 1)
    references = parse_apps_options([*words, "--ref-scores", "--num-samples", "7"])
    assert references.output == tmp_path / "results/apps/temperature=0.8/dataset_7.jsonl"
    # the flags of training may be spelled as they are there
    both = [parse_apps_options([*words, flag, "3"]).grading for flag in ("--max-tests", "--max_tests")]
    assert both[0] == both[1] != options.grading


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset", "summarize"], "no tests to run"),
        (["--model", "{models}/run/step-8"], "there is no folder"),
        (["--num-return-sequences", "0"], "at least 1"),
        (["--num-return-sequences", "2", "--temperature", "0"], "answers that differ"),
        (["--code-sandbox", "none"], "refusing to run model-written code"),
        (["--test-time-limit", "0"], "test_time_limit"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_result(models, tmp_path, more, message):
    output = tmp_path / "out.jsonl"
    with pytest.raises(UserError) as caught:
        run_here(models, *[part.format(models=models) for part in more], "--output", output)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not output.exists()

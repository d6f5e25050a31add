from __future__ import annotations

import contextlib
import io
import json
from collections import Counter
from typing import Any

import pytest

from dschat.code_execution.comparison import text_difference, value_difference
from dschat.code_execution.pool import GradingPool
from dschat.data import tiny_apps
from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.stages import PPO, SFT
from dschat.data.tiny_apps import NUM_TESTS, all_problems, build_rows
from dschat.data.tiny_apps_algorithms import algorithm_problems
from dschat.data.tiny_apps_chains import chain_problems
from dschat.data.tiny_apps_problems import Problem, simple_problems

SEED = 1234


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return [row for split in build_rows(all_problems(), seed=SEED).values() for row in split]


def run_script(program: str, text: str) -> bytes:
    """What one of our own scripts prints."""
    printed = io.StringIO()
    lines = iter(text.splitlines())
    with contextlib.redirect_stdout(printed):
        exec(program, {"input": lambda: next(lines)})
    return printed.getvalue().encode()


def test_problems_are_those_of_all_three_parts_and_none_twice() -> None:
    parts = [[problem.answer for problem in part()] for part in (simple_problems, algorithm_problems, chain_problems)]
    assert all(len({*part}) == len(part) >= 30 for part in parts)
    answers = [problem.answer for problem in all_problems()]
    assert answers[: len(parts[0] + parts[1])] == parts[0] + parts[1]
    assert {*answers} == {*parts[0], *parts[1], *parts[2]}


def test_there_are_problems_of_every_kind(rows: list[dict[str, Any]]) -> None:
    assert len(all_problems()) >= 1400
    assert len({(problem.name, problem.parameters) for problem in all_problems()}) >= 100
    assert len({row["question"] for row in rows}) == len(rows) == 2 * len(all_problems())
    assert len({row["problem_id"] for row in rows}) == len(rows)
    assert len({(problem.answer, problem.parameters) for problem in all_problems()}) == len(all_problems())
    kinds = Counter((row["difficulty"], "fn_name" in row["input_output"]) for row in rows)
    assert set(kinds) == {(d, f) for d in ("introductory", "interview", "competition") for f in (True, False)}
    assert min(kinds.values()) >= 15


def test_every_solution_passes_every_test(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        tests = json.loads(row["input_output"])
        solution, explained = json.loads(row["solutions"])
        assert explained.endswith(solution)
        assert all(line.startswith("# ") for line in explained.removesuffix(solution).splitlines())
        assert len(tests["inputs"]) == len(tests["outputs"]) == NUM_TESTS
        for given, expected in zip(tests["inputs"], tests["outputs"], strict=True):
            if "fn_name" in tests:
                namespace: dict[str, Any] = {}
                exec(solution, namespace)
                assert value_difference(namespace[tests["fn_name"]](*given), expected) is None, row["question"]
            else:
                assert text_difference(run_script(solution, given), expected) is None, row["question"]


def test_no_constant_answer_solves_a_problem(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        outputs = Counter(json.dumps(output) for output in json.loads(row["input_output"])["outputs"])
        assert max(outputs.values()) <= NUM_TESTS - 1, row["question"]


def test_the_shown_example_is_not_a_test() -> None:
    for problem in all_problems():
        [row, _] = [row for split in build_rows([problem], seed=SEED).values() for row in split]
        assert list(problem.example[0]) not in json.loads(row["input_output"])["inputs"]


def test_sandboxed_solutions_pass_and_others_fail(rows: list[dict[str, Any]]) -> None:
    sample = rows[::40]
    tests = [json.loads(row["input_output"]) for row in sample]
    right = [json.loads(row["solutions"])[0] for row in sample]
    wrong = [*right[1:], *right[:1]]  # of another problem in the same form
    with GradingPool(2) as pool:
        handles = [pool.submit(list(zip(programs, tests, strict=True))) for programs in (right, wrong)]
        passed, failed = (handle.results() for handle in handles)
    assert [report.score for report in passed] == [1.0] * len(sample)
    assert max(report.score for report in failed) < 1.0


def test_rows_depend_on_the_seed_alone() -> None:
    first, same, other = (build_rows(all_problems()[:200], seed=seed) for seed in (5, 5, 6))
    assert first == same
    assert first != other


def test_both_forms_of_a_problem_are_on_one_side() -> None:
    splits = build_rows(all_problems(), seed=SEED)
    numbers = {name: {row["problem_id"] // 2 for row in rows} for name, rows in splits.items()}
    assert not numbers["train"] & numbers["test"]
    assert len(numbers["test"]) == round(len(all_problems()) * tiny_apps.TEST_SHARE)


def test_a_solution_that_contradicts_its_example_is_refused() -> None:
    problem = Problem("add", "a b", "the sum", "a - b", ((1, 2), 3))
    with pytest.raises(ValueError, match=r"add\(1, 2\) gives -1, the example says 3"):
        build_rows([problem], seed=0)


def test_dataset_offers_prompts_solutions_and_records(tmp_path: Any) -> None:
    raw = find_raw_dataset("tiny-apps", seed=SEED, cache_dir=tmp_path)
    splits = raw.load(PPO.texts)
    assert len(splits.train) + len(splits.evaluation) == 2 * len(all_problems())
    for row in splits.evaluation:
        prompt, record = raw.prompt(row), raw.record(row)
        assert prompt is not None
        assert prompt.startswith("### Problem:\n")
        assert prompt.endswith("\n\n### Response:\n")
        assert record["prompt"] == prompt
        assert record["chosen"] == json.loads(row["solutions"])[0]
        assert record["input_output"] == json.loads(row["input_output"])
        assert record["difficulty"] in ("introductory", "interview", "competition")
    assert find_raw_dataset("tiny-apps", seed=SEED, cache_dir=tmp_path).load(SFT.texts).train[3] == splits.train[3]
    other = find_raw_dataset("tiny-apps", seed=1, cache_dir=tmp_path).load(PPO.texts)
    assert other.evaluation["question"] == splits.evaluation["question"]

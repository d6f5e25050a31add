"""ROUGE and distinct-n against values worked out by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dschat.answering.results import Result
from dschat.judging.metrics import distinct_share, measure, rouge_means
from tests.judging.helpers import ROOT, run_program, write_results

PROGRAM = ROOT / "evaluation" / "metrics.py"


def f_measure(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall)


def test_rouge_is_the_f_measure_of_shared_grams_and_of_the_longest_common_subsequence():
    # shared words: the, cat, sat (3 of 4 and 3 of 5); shared pairs: the cat, cat sat; subsequence: the cat sat
    found = rouge_means([("the cat sat down", ["the cat sat on mats"])])
    assert found["rouge1"] == pytest.approx(f_measure(3 / 4, 3 / 5))
    assert found["rouge2"] == pytest.approx(f_measure(2 / 3, 2 / 4))
    assert found["rougeL"] == pytest.approx(f_measure(3 / 4, 3 / 5))


def test_best_reference_counts_and_answers_without_one_are_left_out():
    results = [Result("p", "a b", None), Result("q", "c", None)]
    found = measure(results, {"p": ["x y", "a b"]})
    assert (found.answers, found.compared, found.rouge1, found.rouge2) == (2, 1, 1.0, 1.0)


def test_distinct_counts_grams_over_all_answers():
    assert distinct_share(["a b a", "A c"], 1) == pytest.approx(3 / 5)
    assert distinct_share(["a b a", "b a"], 2) == pytest.approx(2 / 3)
    assert distinct_share(["a", ""], 2) is None


def test_program_measures_files_against_local_data(tmp_path):
    rows = [{"prompt": f"post {row}", "chosen": f"answer number {row}", "rejected": "x"} for row in range(4)]
    for split in ("train", "eval"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    good = write_results(tmp_path / "good.jsonl", [f"answer number {row}" for row in range(4)])
    bad = write_results(tmp_path / "bad.jsonl", ["zebra"] * 4)
    output = tmp_path / "out" / "metrics.json"
    words = ["--dataset", "hh-rlhf", "--data-path", tmp_path / "data", "--data-output-path", tmp_path / "cache"]
    done = run_program(PROGRAM, good, bad, *words, "--output", output)
    assert done.returncode == 0, done.stderr
    numbers = json.loads(output.read_text())
    assert [numbers[str(path)]["rougeL"] for path in (good, bad)] == [1.0, 0.0]
    assert numbers[str(bad)]["distinct1"] == 0.25
    other = write_results(tmp_path / "other.jsonl", ["x"], prompt="unknown")
    assert "no prompt of the files" in run_program(PROGRAM, other, *words).stderr


def test_missing_file_is_named(tmp_path: Path):
    done = run_program(PROGRAM, tmp_path / "none.jsonl")
    assert done.returncode == 2 and "none.jsonl" in done.stderr and done.stderr.count("\n") == 1

"""Answers of two models belong together row by row."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.errors import UserError
from dschat.judging.pairs import LONG_ANSWER, Pair, load_pairs, other
from tests.judging.helpers import write_results

FLAGS = ("a", "b")


def pairs(folder: Path, a: list[str], b: list[str], *, num_sample: int = 9) -> list[Pair]:
    paths = write_results(folder / "a.jsonl", a), write_results(folder / "b.jsonl", b)
    return load_pairs(*paths, num_sample=num_sample, flags=FLAGS)


def test_rows_are_paired_in_order_up_to_the_number_asked_for(tmp_path: Path) -> None:
    found = pairs(tmp_path, ["a0", "a1", "a2"], ["b0", "b1", "b2"], num_sample=2)
    assert [(pair.row, pair.answer("A").response, pair.answer("B").response) for pair in found] == [
        (0, "a0", "b0"), (1, "a1", "b1"),
    ]  # fmt: skip


def test_a_key_stands_for_everything_that_a_judge_is_shown(tmp_path: Path) -> None:
    (pair,) = pairs(tmp_path, ["a"], ["b"])
    (another,) = pairs(tmp_path, ["a"], ["c"])
    keys = [
        pair.key("A", judge="j", template="t"), pair.key("B", judge="j", template="t"),
        pair.key("A", judge="k", template="t"), pair.key("A", judge="j", template="u"),
        another.key("A", judge="j", template="t"),
    ]  # fmt: skip
    assert len({*keys}) == 5
    assert pair.key("A", judge="j", template="t") == keys[0]
    assert other("A") == "B" and other("B") == "A"


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"has 1 rows and .* has 2"):
        pairs(tmp_path, ["a"], ["b", "b"])
    path = write_results(tmp_path / "a.jsonl", ["a"])
    with pytest.raises(UserError, match="--a and --b are the same file"):
        load_pairs(path, path, num_sample=1, flags=FLAGS)
    elsewhere = write_results(tmp_path / "c.jsonl", ["c"], prompt="another {row}")
    with pytest.raises(UserError, match=r"row 1 of .* have different prompts"):
        load_pairs(path, elsewhere, num_sample=1, flags=FLAGS)
    with pytest.raises(UserError, match="--num_sample must be at least 1, got 0"):
        pairs(tmp_path, ["a"], ["b"], num_sample=0)


def test_odd_answers_are_mentioned(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    pairs(tmp_path, [" ", "a"], ["b", "b" * LONG_ANSWER])
    assert "1 answers of model A are empty (first in row 1)" in caplog.text
    assert "model B's answer in row 2 has 20,000 characters" in caplog.text

"""Which answers are compared with which."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dschat.errors import UserError
from dschat.judging.pairs import LONG_ANSWER, Pair, load_pairs, made_by, other
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


def results(path: Path, *answers: tuple[str, str]) -> Path:
    """A result file of prompts and answers."""
    rows = [{"prompt": prompt, "response": response, "reward": None} for prompt, response in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def paired(a: Path, b: Path, num_sample: int = 50) -> list[tuple[int, str, str, str]]:
    pairs = load_pairs(a, b, num_sample=num_sample, flags=FLAGS)
    return [(pair.row, pair.prompt, pair.a.response, pair.b.response) for pair in pairs]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model answers each prompt once."""
    return results(tmp_path / "model.jsonl", ("p", "m1"), ("q", "m2"), ("r", "m3"))


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """The dataset's own answers, as --ref-scores writes them: every pair counts, and prompts repeat."""
    return results(tmp_path / "ref.jsonl", ("p", "d1"), ("p", "d2"), ("q", "d3"), ("r", "d4"), ("q", "d5"))


def test_a_model_is_compared_with_the_dataset_s_answers_where_prompts_repeat(model, dataset, caplog):
    expected = [(0, "p", "m1", "d1"), (1, "q", "m2", "d3"), (2, "r", "m3", "d4")]
    with caplog.at_level(logging.INFO):
        assert paired(model, dataset) == expected
    assert "3 prompts are in both files, some several times" in caplog.text
    assert paired(model, dataset, num_sample=2) == expected[:2]
    assert [(b, a) for _, _, a, b in paired(dataset, model)] == [(a, b) for _, _, a, b in expected]
    assert [row for row, *_ in paired(dataset, model)] == [0, 2, 3]


def test_prompts_of_one_file_may_be_fewer(model, tmp_path):
    few = results(tmp_path / "few.jsonl", ("q", "d1"), ("q", "d2"))
    assert paired(model, few) == [(1, "q", "m2", "d1")]


def test_repeated_prompts_that_lie_side_by_side_stay_pairs_of_their_own(dataset, tmp_path):
    other = results(tmp_path / "other.jsonl", *((prompt, f"o{n}") for n, prompt in enumerate("ppqrq")))
    assert [row for row, *_ in paired(dataset, other)] == [0, 1, 2, 3, 4]


def test_files_on_other_prompts_are_refused(model, dataset, tmp_path):
    other = results(tmp_path / "other.jsonl", ("p", "o1"), ("p", "o2"), ("x", "o3"), ("y", "o4"))
    with pytest.raises(UserError, match="different prompts"):
        paired(model, other)
    with pytest.raises(UserError, match="has 3 rows and"):  # nothing is repeated: a sample that was cut
        paired(model, results(tmp_path / "short.jsonl", ("p", "s1"), ("q", "s2")))


@pytest.mark.parametrize(
    ("content", "model"),
    [
        ('{"settings": {"model": "out/actor", "ref_scores": false}}', "out/actor"),
        ('{"settings": {"ref_scores": true}}', "the dataset's own answers"),
        ('{"settings": {"model": 5}}', None), ('{"settings": []}', None), ("[]", None), ("{", None), ("", None),
        ('{"settings": {}}', None),
    ],
)  # fmt: skip
def test_model_behind_a_file_is_named_where_a_file_beside_it_says_so(content, model, tmp_path):
    assert made_by(tmp_path / "A.jsonl") is None
    (tmp_path / "A.jsonl.run.json").write_text(content)
    assert made_by(tmp_path / "A.jsonl") == made_by(tmp_path / "A-sampled.jsonl") == model
    assert made_by(tmp_path / "B.jsonl") is None

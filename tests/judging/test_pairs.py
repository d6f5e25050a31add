"""Which answers are compared with which."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from dschat.errors import UserError
from dschat.judging.pairs import load_pairs, made_by


def results(path: Path, *answers: tuple[str, str]) -> Path:
    """A result file of prompts and answers."""
    rows = [{"prompt": prompt, "response": response, "reward": None} for prompt, response in answers]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def paired(a: Path, b: Path, num_sample: int = 50) -> list[tuple[int, str, str, str]]:
    pairs = load_pairs(a, b, num_sample=num_sample, flags=("a", "b"))
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

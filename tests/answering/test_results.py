"""Result files are read with their faults named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from dschat.answering.results import Result, read_results
from dschat.errors import UserError


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_reward_that_is_no_finite_number_is_none(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "response": "r", "reward": reward} for reward in (1, None)]
    path = write(tmp_path / "a.jsonl", *rows, {"prompt": "p", "response": "r"})
    assert read_results(path, flag="a") == [Result("p", "r", reward) for reward in (1.0, None, None)]


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "holds no row"),
        ([{"prompt": "p"}], "row 1 has no 'response'"),
        ([{"prompt": "p", "response": "r", "reward": True}], "the reward of row 1 is no number"),
        ([{"prompt": "p", "response": "r", "reward": "high"}], "the reward of row 1 is no number"),
    ],
)
def test_faults_are_one_sentence(rows: list[object], said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=said):
        read_results(write(tmp_path / "a.jsonl", *rows), flag="a")
    with pytest.raises(UserError, match="there is no such file; run inference"):
        read_results(tmp_path / "gone.jsonl", flag="a")

"""Stages as types: each says what it needs, and a further one is a class and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import Features, Value

from dschat.data.stage_data import build_stage_data
from dschat.data.stages import IDS, PPO, REWARD, SFT, DataStage
from tests.data.helpers import data_source, numbered_rows, write_jsonl
from toys.tokenizers import make_tokenizer


@dataclass(frozen=True)
class RankedStage(DataStage):
    """A stage that the package does not have: the answers side by side, the worse one first."""

    name = "ranked"
    part = 3
    texts = ("chosen", "rejected")
    features = Features({"worse": IDS, "better": IDS, "start": Value("int32")})

    def row(self, prompt: list[int], answers: Sequence[list[int]], *, record: str) -> dict[str, Any]:
        return {"worse": prompt + answers[1], "better": prompt + answers[0], "start": len(prompt)}


@pytest.mark.parametrize("stage", [SFT, REWARD, PPO], ids=lambda stage: stage.name)
def test_rows_have_the_columns_that_the_stage_declares(stage: DataStage) -> None:
    answers = [[5 + number, 1] for number in range(len(stage.answers))]
    assert set(stage.row([2, 3], answers, record="{}")) == set(stage.features)


def test_the_three_stages_share_the_split_and_have_the_names_of_saved_states() -> None:
    assert [(stage.name, stage.part) for stage in (SFT, REWARD, PPO)] == [("sft", 0), ("reward", 1), ("ppo", 2)]


def test_a_further_stage_is_one_class(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "data" / "train.jsonl", numbered_rows(40))
    write_jsonl(tmp_path / "data" / "eval.jsonl", numbered_rows(8, start=500))
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="1,1,1,1")
    tokenizer = make_tokenizer()
    data = build_stage_data(source, stage=RankedStage(), tokenizer=tokenizer, max_length=100)
    assert (len(data.train), len(data.evaluation)) == (10, 2)
    row = data.train[0]
    better, worse = (tokenizer.decode(row[name][row["start"] :]) for name in ("better", "worse"))
    assert better.startswith(" good answer ")
    assert worse.startswith(" bad ")
    assert data.report.summary().startswith("Data for ranked: 10 of 10 training rows are used")

"""Columns as paths, and which step needs which."""

from __future__ import annotations

from typing import Any

import pytest
from datasets import Features, List, Value

from dschat.data.base import RawDataset, feature_at, value_at, wrapped
from dschat.data.stages import PPO, REWARD, SFT

ROW: dict[str, Any] = {
    "info": {"post": "text", "none": None}, "summaries": [{"text": "first"}, {"text": "second"}], "empty": [],
    "words": ["a", "b"],
}  # fmt: skip


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("info.post", "text"), ("info.none", None), ("info.gone", None), ("gone.post", None),
        ("summaries[].text", "first"), ("empty[].text", None), ("words[]", "a"),
    ],
)  # fmt: skip
def test_a_value_is_found_by_its_path(column: str, value: object) -> None:
    assert value_at(ROW, column) == value


def test_a_type_is_found_by_its_path() -> None:
    text = Value("string")
    features = Features({"info": {"post": text}, "summaries": List({"text": text}), "words": List(text)})
    for column in ("info.post", "summaries[].text", "words[]"):
        assert feature_at(features, column) == text
    for column in ("info.gone", "info[].post", "gone"):
        assert feature_at(features, column) is None
    assert wrapped("<", "x", ">") == "<x>" and wrapped("<", None) is None and wrapped("<", 1) is None


class Pairs(RawDataset):
    """A dataset with all kinds of columns."""

    name, hub_name = "pairs", "pairs"
    prompt_columns, chosen_columns, rejected_columns = ("info.post", "kind"), ("good[]",), ("bad",)
    record_columns = ("kind", "tests")
    after_prompt, cues = " Assistant:", ("TL;DR:", " Assistant: TL;DR:")


def test_a_step_needs_its_own_columns() -> None:
    dataset = Pairs(source=None, label="pairs", seed=0)  # type: ignore[arg-type]
    assert dataset.columns_for(()) == ("info.post", "kind")
    assert dataset.columns_for(SFT.texts) == ("info.post", "kind", "good[]")
    assert dataset.columns_for(REWARD.texts) == ("info.post", "kind", "good[]", "bad")
    assert dataset.columns_for(PPO.texts) == ("info.post", "kind", "tests")
    assert Pairs.required_columns() == ("info.post", "kind", "good[]", "bad", "tests")


@pytest.mark.parametrize(
    ("prompt", "cue"), [("a TL;DR:", "TL;DR:"), ("a Assistant: TL;DR:", " Assistant: TL;DR:"), ("TL;DR: a", "")]
)
def test_the_longest_cue_of_a_prompt_is_kept(prompt: str, cue: str) -> None:
    assert Pairs(source=None, label="pairs", seed=0).cue(prompt) == cue  # type: ignore[arg-type]

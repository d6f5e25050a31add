"""Columns that nearly fit."""

from __future__ import annotations

import pytest
from datasets import List, Value

from dschat.data.column_hints import renaming_hint

NEEDED = ("prompt", "chosen", "rejected")


@pytest.mark.parametrize(
    ("found", "needed", "hint"),
    [
        (["prompt", "response"], ("prompt", "chosen"), "rename response to chosen; "),
        (["prompt", "completion"], ("prompt", "chosen"), "rename completion to chosen; "),
        (["question", "answer"], ("prompt", "chosen"), "rename question to prompt and answer to chosen; "),
        (["instruction", "input", "output"], NEEDED, "rename instruction to prompt and output to chosen; "),
        (["Prompt", "Chosen", "Rejected"], NEEDED,
         "rename Prompt to prompt and Chosen to chosen and Rejected to rejected; "),
        (["prompt", "chosen_response", "rejected_response"], NEEDED,
         "rename chosen_response to chosen and rejected_response to rejected; "),
        (["prompt", "chosen", "dispreferred"], NEEDED, "rename dispreferred to rejected; "),
        (["messages"], NEEDED, "messages holds whole dialogues: write the last turn of each as chosen and what is "
                               "before it as prompt; "),
        (["histroy", "labels"], ("history", "labels"), "rename histroy to history; "),
        (["infos"], ("info.post",), "rename infos to info; "),
        (["source_file", "number"], NEEDED, ""),
        (["prompt", "chosen"], ("prompt", "chosen"), ""),
    ],
)  # fmt: skip
def test_the_nearest_columns_are_named(found, needed, hint):
    assert renaming_hint(dict.fromkeys(found, Value("string")), needed) == hint


def test_columns_that_hold_no_text_are_not_offered():
    features = {"prompt": Value("string"), "response": List(Value("string")), "output": Value("int64")}
    assert renaming_hint(features, ("prompt", "chosen")) == ""


def test_one_column_is_not_offered_twice():
    features = dict.fromkeys(("prompt", "response"), Value("string"))
    assert renaming_hint(features, NEEDED) == "rename response to chosen; "

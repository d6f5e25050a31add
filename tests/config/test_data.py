"""Settings of the texts."""

from __future__ import annotations

import pytest

from dschat.config.data import DataConfig
from dschat.errors import UserError
from tests.config.commands import parsed, refusal


def test_several_datasets_are_mixed_and_one_is_the_default() -> None:
    assert parsed("sft", "--data_path a b").data.data_path == ["a", "b"]
    assert DataConfig().data_path == ["Dahoas/rm-static"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--skip_bad_rows -1", "--skip_bad_rows must not be negative, got -1"),
        ("--split_by post", "--split_by"),
        ("--apps_prompt short", "--apps_prompt"),
    ],
)
def test_values_that_cannot_be_are_refused(words: str, said: str) -> None:
    assert said in refusal("sft", words)


def test_an_empty_end_of_conversation_is_not_the_default() -> None:
    with pytest.raises(UserError, match="--end_of_conversation_token is empty; leave it out"):
        DataConfig(end_of_conversation_token="").check()
    assert parsed("sft", "--end_of_conversation_token <eot>").data.end_of_conversation_token == "<eot>"

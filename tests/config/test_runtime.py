"""Settings of the run."""

from __future__ import annotations

import pytest

from tests.config.commands import refusal


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("reward", "--deepspeed_config nowhere.json", "there is no such file"),
    ],
)
def test_files_that_are_not_there_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

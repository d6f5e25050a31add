"""Settings of rewards."""

from __future__ import annotations

import pytest

from tests.config.commands import refusal


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("ppo", "--reward_model_weight 0", "leaves nothing that scores answers; name a --reward_function"),
        ("ppo", "--reward_function a:b c:d --reward_function_weight 1", "has 1 numbers for 2 functions"),
    ],
)
def test_weights_that_do_not_fit_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

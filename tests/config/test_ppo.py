"""Settings of step 3."""

from __future__ import annotations

import pytest

from tests.config.commands import refusal


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("ppo", "--per_device_training_batch_size 3", "does not divide the 8 rows"),
        (
            "ppo",
            "--max_tokens_per_micro_batch 64 --unsupervised_dataset_name a --unsup_coef 1",
            "--max_tokens_per_micro_batch does not go with --unsupervised_dataset_name",
        ),
        ("ppo", "--penalty_target 1 --kl_ctl 0", "--penalty_target needs a --kl_ctl above 0"),
        ("ppo", "--penalty_target 1 --f_div none", "--penalty_target has no effect with --f_div none"),
        ("ppo", "--termination_condition randomized", "needs --repeat_times; --repeat_times 3 is a start"),
        ("ppo", "--termination_condition parsing", "needs --parser_cutoff; --parser_cutoff 5 is a start"),
    ],
)
def test_rollouts_and_penalties_that_do_not_fit_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

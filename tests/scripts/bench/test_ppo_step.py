"""The benchmark of PPO steps: variants that differ in the regularizer alone, and overheads within rounds."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest
import torch

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from ppo_step import random_prompts, step_config, summarize, variants

OPTIONS = argparse.Namespace(
    batch=6,
    micro_batch=2,
    prompt_tokens=16,
    answer_tokens=8,
    cost_dim=4,
    dtype="fp32",
    gradient_checkpointing=False,
    shortest_prompt=None,
)


def test_every_variant_is_a_valid_command(tmp_path: Path) -> None:
    found = variants([8, 32])
    assert len(found) == 6
    for name, flags in found.items():
        config = step_config(OPTIONS, tmp_path, name, flags)
        kind = DivergenceConfig if name in ("none", "kl") else WassersteinConfig
        assert isinstance(config.regularizer, kind)
        assert config.batches(1).prompts == OPTIONS.batch


def test_prompts_are_the_same_for_a_seed_and_within_the_vocabulary() -> None:
    first, again, other = (random_prompts(OPTIONS, 50, seed=seed) for seed in (1, 1, 2))
    assert first.input_ids.shape == (6, 16)
    assert torch.equal(first.input_ids, again.input_ids) and not torch.equal(first.input_ids, other.input_ids)
    assert int(first.input_ids.max()) < 50


def test_overheads_are_medians_of_differences_within_rounds() -> None:
    def times(step: float, scoring: float) -> dict[str, float]:
        return {
            "step_seconds": step, "scoring_seconds": scoring, "generation_seconds": 1.0, "training_seconds": 1.0
        }  # fmt: skip

    # a round in which the whole machine was slow
    rounds = [{"kl": times(4.0, 1.0), "wpr": times(5.0, 2.0)}, {"kl": times(40.0, 10.0), "wpr": times(41.0, 11.0)},
              {"kl": times(4.0, 1.0), "wpr": times(5.0, 2.0)}]  # fmt: skip
    found = summarize(rounds)
    assert found["kl"].overhead_seconds == 0.0
    assert found["wpr"].overhead_seconds == pytest.approx(1.0)
    assert found["wpr"].overhead_percent == found["wpr"].scoring_overhead_percent == pytest.approx(25.0)
    assert found["wpr"].step_seconds == 5.0

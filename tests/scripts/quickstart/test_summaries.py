"""The quickstart's launches: valid command lines, one after the other, with clear failures."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from quickstart.options import Options
from quickstart.stages import Stage, launch_words
from quickstart.summaries import FAST, FULL, Preset, plan


def options(output: Path) -> Options:
    return Options(output=output, fast=False, seed=11, overwrite=False)


def words_of(stage: Stage) -> list[str]:
    """The program's own words in the launch command."""
    words = launch_words(stage, num_ranks=2)
    return words[words.index(stage.program) + 1 :]


@pytest.mark.parametrize("preset", [FULL, FAST], ids=["full", "fast"])
@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_every_launch_is_accepted_by_its_program(preset: Preset, num_ranks: int, tmp_path: Path) -> None:
    sft, reward, kl, wasserstein = plan(preset, options(tmp_path), num_ranks=num_ranks)

    sft_config = parse_sft_config(words_of(sft))
    reward_config = parse_reward_config(words_of(reward))
    kl_config = parse_ppo_config(words_of(kl), regularizer=DivergenceConfig)
    wasserstein_config = parse_ppo_config(words_of(wasserstein), regularizer=WassersteinConfig)

    # each step starts from what the one before wrote, and both PPO runs from the same folders
    assert reward_config.training.model_name_or_path == sft_config.output.output_dir
    for config in (kl_config, wasserstein_config):
        assert config.models.actor_model_name_or_path == sft_config.output.output_dir
        assert config.models.critic_model_name_or_path == reward_config.output.output_dir
        assert config.batches(num_ranks).prompts == preset.ppo_batch
        assert config.runtime.seed == 11
    assert kl_config.rollout == wasserstein_config.rollout
    assert kl_config.ppo == wasserstein_config.ppo
    assert sft_config.training.per_device_train_batch_size * num_ranks == preset.sft_batch
    assert len({stage.flags["output_dir"] for stage in (sft, reward, kl, wasserstein)}) == 4
    for stage in (sft, reward, kl, wasserstein):
        assert (stage.folder / stage.program).is_file()

"""Settings of the steps: what the published commands mean, and rules between sections."""

from __future__ import annotations

import pytest

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import parse_reward_config, parse_sft_config
from dschat.errors import UserError
from tests.config import commands
from tests.config.commands import STEPS, parse_apps, parse_kl, parse_wpr, refusal


def test_published_sft_command_means_what_it_says() -> None:
    config = parse_sft_config(["--local_rank=3", *commands.SFT])
    assert config.runtime.local_rank == 3
    assert config.data.data_path == ["openai/summarize_from_feedback"]
    assert config.training.learning_rate == 5e-5
    assert config.training.gradient_checkpointing is True
    assert config.schedule.warmup_steps(1000) == 100
    assert config.output.output_dir == "../../models/summarize/sft"


def test_published_reward_command_means_what_it_says() -> None:
    config = parse_reward_config(commands.REWARD)
    assert config.training.zero_stage == 2
    assert config.training.weight_decay == 0.1


def test_published_ppo_commands_mean_what_they_say() -> None:
    config = parse_wpr(commands.WASSERSTEIN)
    assert (config.regularizer.max_iter, config.regularizer.cost_dim, config.regularizer.top_k) == (10, 512, 128)
    assert (config.models.actor_zero_stage, config.models.critic_zero_stage) == (2, 3)
    assert config.models.actor_dropout == 0.0
    assert config.runtime.offload is True
    assert config.ppo.kl_ctl == 0.05
    batches = config.batches(world_size=8)
    assert (batches.rollout_batches, batches.updates, batches.prompts) == (4, 1, 256)
    assert parse_kl(commands.PPO).regularizer == DivergenceConfig()


@pytest.mark.parametrize(
    ("generation", "group", "training", "accumulation", "epochs", "expected"),
    [
        (8, 1, 8, 4, 1, (4, 1, 64)),
        (16, 1, 4, 2, 1, (1, 2, 32)),
        (4, 3, 6, 1, 2, (3, 4, 24)),
        (4, 2, 8, 3, 1, (6, 1, 48)),
    ],
)
def test_batch_arithmetic_fills_whole_optimizer_steps(
    generation: int, group: int, training: int, accumulation: int, epochs: int, expected: tuple[int, int, int]
) -> None:
    extra = (
        f"--per_device_generation_batch_size {generation} --generation_batches {group} --ppo_epochs {epochs} "
        f"--per_device_training_batch_size {training} --gradient_accumulation_steps {accumulation}"
    )
    batches = parse_kl([*commands.PPO, *extra.split()]).batches(world_size=2)
    assert (batches.rollout_batches, batches.updates, batches.prompts) == expected
    assert batches.micro_batches % accumulation == 0


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("ppo", "--early_stop_kl 1", "--early_stop_kl has no effect where a PPO step makes one optimizer step"),
        (
            "ppo",
            "--actor_lora_dim 8 --only_optimize_lora --offload_reference_model",
            "--offload_reference_model has no effect",
        ),
    ],
)
def test_settings_of_sections_that_contradict_each_other_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)


@pytest.mark.parametrize("step", STEPS)
def test_missing_output_folder_is_refused_before_anything_runs(step: str) -> None:
    parse, words = STEPS[step]
    at = words.index("--output_dir")
    with pytest.raises(UserError, match="--output_dir is missing"):
        parse(words[:at] + words[at + 2 :])


def test_the_critic_may_be_left_out_where_unit_tests_give_the_rewards() -> None:
    assert parse_apps(commands.APPS).models.critic_model_name_or_path is None
    assert not parse_apps(commands.APPS).reward.uses_reward_model
    assert parse_kl(commands.PPO).reward.uses_reward_model
    at = commands.PPO.index("--critic_model_name_or_path")
    with pytest.raises(UserError, match="--critic_model_name_or_path is missing; name the step_<n> folder"):
        parse_kl(commands.PPO[:at] + commands.PPO[at + 2 :])

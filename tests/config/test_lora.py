"""Settings of adapters."""

from __future__ import annotations

import pytest

from dschat.config.steps import parse_sft_config
from tests.config import commands
from tests.config.commands import parse_kl, refusal


def test_lora_flags_as_published_describe_the_adapters() -> None:
    assert parse_sft_config(commands.SFT).adapter is None
    extra = "--lora_dim 128 --lora_module_name decoder.layers. --only_optimize_lora --lora_learning_rate 1e-4"
    adapter = parse_sft_config([*commands.SFT, *extra.split()]).adapter
    assert adapter is not None
    assert (adapter.rank, adapter.alpha, adapter.learning_rate) == (128, 1.0, 1e-4)
    assert (adapter.module_names, adapter.alone, adapter.quantized) == (("decoder.layers.",), True, False)
    extra = "--actor_lora_dim 64 --actor_lora_module_name q_proj v_proj --lora_alpha 16 --actor_lora_learning_rate 1e-3"
    config = parse_kl([*commands.PPO, *extra.split()])
    assert config.critic_adapter is None
    assert config.actor_adapter is not None
    assert (config.actor_adapter.rank, config.actor_adapter.alpha, config.actor_adapter.alone) == (64, 16.0, False)
    assert config.actor_adapter.module_names == ("q_proj", "v_proj")


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("sft", "--only_optimize_lora", "--only_optimize_lora needs --lora_dim"),
        ("reward", "--lora_dim 8 --quantize 4bit", "--quantize 4bit needs --lora_dim and --only_optimize_lora"),
        ("sft", "--lora_dim 8 --only_optimize_lora --quantize 4bit", "--quantize 4bit needs --dtype bf16"),
        ("ppo", "--only_optimize_lora", "--only_optimize_lora needs --actor_lora_dim or --critic_lora_dim"),
        (
            "ppo",
            "--critic_lora_dim 8 --only_optimize_lora --critic_quantize 4bit",
            "--critic_quantize 4bit needs --critic_zero_stage 0, 1 or 2",
        ),
    ],
)
def test_adapters_that_cannot_be_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

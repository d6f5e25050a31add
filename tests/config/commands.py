"""The published command lines, as their users have them in their shell history, and what reads them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from dschat.config.flag import Section
from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.rewards import UnitTestRewardConfig
from dschat.config.steps import PPOConfig, parse_ppo_config, parse_reward_config, parse_sft_config
from dschat.errors import UserError

SFT = """--data_path openai/summarize_from_feedback --data_split 2,4,4 --model_name_or_path google/gemma-2b
--per_device_train_batch_size 8 --per_device_eval_batch_size 8 --max_seq_len 1024 --learning_rate 5e-5
--weight_decay 0.01 --num_train_epochs 3 --gradient_accumulation_steps 8 --lr_scheduler_type cosine --warmup_ratio 0.1
--seed 1234 --gradient_checkpointing --zero_stage 2 --deepspeed --output_dir ../../models/summarize/sft""".split()

REWARD = """--data_path openai/summarize_from_feedback --data_split 2,4,4
--model_name_or_path ../../models/summarize/sft
--per_device_train_batch_size 8 --per_device_eval_batch_size 8 --max_seq_len 1024 --learning_rate 1e-5
--weight_decay 0.1 --num_padding_at_beginning 0 --num_train_epochs 1 --gradient_accumulation_steps 1
--lr_scheduler_type cosine --warmup_ratio 0.1 --seed 1234 --gradient_checkpointing --zero_stage 2 --deepspeed
--output_dir ../../models/summarize/reward_model""".split()

PPO = """--data_path openai/summarize_from_feedback --data_split 2,4,4
--actor_model_name_or_path ../../models/summarize/sft
--critic_model_name_or_path ../../models/summarize/reward_model/step_581 --num_padding_at_beginning 0
--per_device_generation_batch_size 8 --per_device_training_batch_size 8 --generation_batches 1 --ppo_epochs 1
--max_answer_seq_len 256 --max_prompt_seq_len 512 --actor_learning_rate 1.5e-5 --critic_learning_rate 1.5e-5
--actor_weight_decay 0.1 --critic_weight_decay 0.1 --num_train_epochs 1 --warmup_ratio 0.05 --lr_scheduler_type linear
--gradient_accumulation_steps 4 --actor_gradient_checkpointing --critic_gradient_checkpointing
--end_of_conversation_token <eos> --actor_dropout 0.0 --deepspeed --seed 1234 --actor_zero_stage 2
--critic_zero_stage 3 --offload --kl_ctl 0.05 --temperature 0.8 --gamma 1.0 --lam 0.95 --termination_condition fixed
--ngram 1 --value_function equal --output_dir ../../models/summarize/ppo""".split()

WASSERSTEIN = [*PPO[:-1], "../../models/summarize/wpr", *"--max_iter 10 --cost_dim 512 --top_k 128".split()]

_TO_APPS = {
    "openai/summarize_from_feedback": "codeparrot/apps",
    "2,4,4": "2,0,8",
    "../../models/summarize/sft": "../../models/apps/sft",
    "../../models/summarize/ppo": "../../models/apps/ppo",
    "../../models/summarize/wpr": "../../models/apps/wpr",
}


def _on_apps(command: list[str]) -> list[str]:
    """The same command for programming problems: 20 % SFT, 80 % PPO, no step 2 and so no critic to name."""
    at = command.index("--critic_model_name_or_path")
    return [_TO_APPS.get(word, word) for word in command[:at] + command[at + 2 :]]


APPS = _on_apps(PPO)
WASSERSTEIN_APPS = _on_apps(WASSERSTEIN)


def parse_kl(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=DivergenceConfig)


def parse_wpr(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=WassersteinConfig)


def parse_apps(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=DivergenceConfig, reward=UnitTestRewardConfig)


def parse_wpr_apps(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=WassersteinConfig, reward=UnitTestRewardConfig)


STEPS: dict[str, tuple[Callable[[list[str]], Any], list[str]]] = {
    "sft": (parse_sft_config, SFT),
    "reward": (parse_reward_config, REWARD),
    "ppo": (parse_kl, PPO),
    "wpr": (parse_wpr, WASSERSTEIN),
    "apps": (parse_apps, APPS),
    "wpr_apps": (parse_wpr_apps, WASSERSTEIN_APPS),
}


def parsed(step: str, extra: str = "") -> Any:
    """The settings of a published command with more words."""
    parse, words = STEPS[step]
    return parse([*words, *extra.split()])


def refusal(step: str, extra: str) -> str:
    """The one sentence that a published command with more words gets."""
    with pytest.raises(UserError) as caught:
        parsed(step, extra)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def section_classes(base: type[Section] = Section) -> list[type[Section]]:
    """All classes of settings in the package."""
    found = []
    for section in base.__subclasses__():
        if section.__module__.startswith("dschat.config.") and dataclasses.is_dataclass(section):
            found.append(section)
        found += section_classes(section)
    return found

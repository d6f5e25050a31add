"""Reward sources, chosen by the type of their settings."""

from __future__ import annotations

from torch import nn

from dschat.config.sections import LearnedRewardConfig
from dschat.rlhf.reward_sources.base import RewardSource
from dschat.rlhf.reward_sources.learned_model import LearnedModelReward
from dschat.rlhf.reward_sources.python_function import FunctionReward, load_reward_function
from dschat.rlhf.reward_sources.weighted_sum import WeightedSum

__all__ = ["RewardSource", "build_reward_source", "check_reward_source"]


def check_reward_source(config: LearnedRewardConfig) -> None:
    """Raise UserError for settings whose source cannot be built; no weights are read."""
    match config:
        case LearnedRewardConfig():
            for name in config.reward_function:
                load_reward_function(name)


def build_reward_source(config: LearnedRewardConfig, *, reward_model: nn.Module | None) -> RewardSource:
    """The reward source that a section of settings describes.

    Args:
        config: its type chooses the variant.
        reward_model: the frozen copy of the step-2 checkpoint, which scores tokens; None where nothing asks for it.
    """
    match config:
        case LearnedRewardConfig():
            parts: list[tuple[float, RewardSource]] = []
            if reward_model is not None:
                parts.append((config.reward_model_weight, LearnedModelReward(reward_model)))
            for name, weight in zip(config.reward_function, config.function_weights, strict=True):
                parts.append((weight, FunctionReward(name, load_reward_function(name))))
            (weight, source), *more = parts
            return WeightedSum(tuple(parts)) if more or weight != 1 else source

"""Reward sources, chosen by the type of their settings."""

from __future__ import annotations

from torch import nn

from dschat.config.sections import LearnedRewardConfig
from dschat.rlhf.reward_sources.base import RewardSource
from dschat.rlhf.reward_sources.learned_model import LearnedModelReward

__all__ = ["RewardSource", "build_reward_source"]


def build_reward_source(config: LearnedRewardConfig, *, reward_model: nn.Module) -> RewardSource:
    """The reward source that a section of settings describes.

    Args:
        config: its type chooses the variant.
        reward_model: the frozen copy of the step-2 checkpoint, which scores tokens.
    """
    match config:
        case LearnedRewardConfig():
            return LearnedModelReward(reward_model)

"""Reward sources, chosen by the type of their settings."""

from __future__ import annotations

import logging

from dschat.code_execution.apps_tests import GradingRules
from dschat.code_execution.pool import BATCH_SECONDS, GradingPool, SandboxChoice, default_workers
from dschat.code_execution.records import MEBIBYTE
from dschat.config.rewards import LearnedRewardConfig, RewardConfig, UnitTestRewardConfig
from dschat.models.lora import FrozenModel
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores
from dschat.rlhf.reward_sources.learned_model import LearnedModelReward
from dschat.rlhf.reward_sources.python_function import FunctionReward, load_reward_function
from dschat.rlhf.reward_sources.unit_tests import UnitTestReward
from dschat.rlhf.reward_sources.weighted_sum import WeightedSum

__all__ = ["RewardSource", "SequenceScores", "build_reward_source", "check_reward_source", "open_grading_pool"]

logger = logging.getLogger(__name__)


def check_reward_source(config: RewardConfig) -> None:
    """Raise UserError for settings whose source cannot be built; no weights are read."""
    match config:
        case LearnedRewardConfig():
            for name in config.reward_function:
                load_reward_function(name)


def build_reward_source(config: RewardConfig, *, reward_model: FrozenModel | None = None) -> RewardSource:
    """The reward source that a section of settings describes.

    Args:
        config: its type chooses the variant.
        reward_model: the frozen copy of the step-2 checkpoint, which scores tokens; None where nothing asks for it.
    Raises:
        UserError: programs are to be run and no sandbox works here.
    """
    match config:
        case LearnedRewardConfig():
            return _weighted(config, reward_model)
        case UnitTestRewardConfig():
            return UnitTestReward(open_grading_pool(config))
    raise TypeError(f"{type(config).__name__} has no arm in build_reward_source")


def open_grading_pool(config: UnitTestRewardConfig, *, batch_seconds: float = BATCH_SECONDS) -> GradingPool:
    """The workers that a section of settings describes.

    Args:
        config: limits, judgement and sandbox.
        batch_seconds: see `GradingPool`.
    Raises:
        UserError: no sandbox works here.
    """
    rules = GradingRules(
        time_limit=config.test_time_limit,
        memory_limit=config.test_memory_limit_mb * MEBIBYTE,
        max_tests=config.max_tests,
        comparison=config.apps_compare,
        reward_shape=config.reward_shape,
    )
    num_workers = config.grading_workers or default_workers()
    pool = GradingPool(
        num_workers,
        sandbox=SandboxChoice(config.code_sandbox, config.allow_unsandboxed),
        rules=rules,
        batch_seconds=batch_seconds,
    )
    level = logging.WARNING if config.allow_unsandboxed else logging.INFO
    logger.log(level, "programs are graded by %d processes, each in: %s", num_workers, pool.description)
    return pool


def _weighted(config: LearnedRewardConfig, reward_model: FrozenModel | None) -> RewardSource:
    parts: list[tuple[float, RewardSource]] = []
    if reward_model is not None:
        parts.append((config.reward_model_weight, LearnedModelReward(reward_model)))
    for name, weight in zip(config.reward_function, config.function_weights, strict=True):
        parts.append((weight, FunctionReward(name, load_reward_function(name))))
    (weight, source), *more = parts
    return WeightedSum(tuple(parts)) if more or weight != 1 else source

"""What PPO does to scores and penalties before they are rewards, and the two running numbers that this needs.

B rows, R response width. The state changes once per PPO step, from the experience of all ranks, so that a step's
rewards depend neither on the number of ranks nor on the cut into batches, and evaluation changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.config.steps import PPOConfig
from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.ppo_math import clip_penalty, shape_rewards
from dschat.runtime.distributed import reduce_sum
from dschat.runtime.metrics import Sums

LARGEST_ERROR = 0.2  # relative, of the adaptive coefficient's controller


@dataclass(frozen=True)
class RunningMoments:
    """Count, mean and summed squared deviations of everything seen so far."""

    count: float = 0.0
    mean: float = 0.0
    squared_deviations: float = 0.0

    @property
    def std(self) -> float:
        """Standard deviation; 1 as long as there is none."""
        variance = self.squared_deviations / self.count if self.count else 0.0
        return math.sqrt(variance) if variance > 0 else 1.0

    def joined(self, count: float, total: float, squares: float) -> RunningMoments:
        """With `count` more values, given by their sum and the sum of their squares (Chan et al. 1979)."""
        if count == 0:
            return self
        mean, all_ = total / count, self.count + count
        apart = mean - self.mean
        deviations = max(squares - count * mean**2, 0.0) + apart**2 * self.count * count / all_
        return RunningMoments(all_, self.mean + apart * count / all_, self.squared_deviations + deviations)


def adapted_coefficient(coef: float, penalty: float, *, target: float, answers: float, horizon: float) -> float:
    """One step of a proportional controller (Ziegler et al. 2019, arXiv 1909.08593, Sec. 2.2).

    Args:
        coef: the coefficient beta so far.
        penalty: mean penalty per token in the last PPO step.
        target: the mean penalty to steer towards, above 0.
        answers: number of answers in that step.
        horizon: answers in which an error of 1 would double the coefficient.
    Returns:
        the new coefficient: larger where the penalty is above the target, and the other way round.
    """
    error = min(max(penalty / target - 1.0, -LARGEST_ERROR), LARGEST_ERROR)
    return coef * (1.0 + error * answers / horizon)


class RewardShaper:
    """Turns scores and penalties into token rewards, as the settings ask."""

    def __init__(self, config: PPOConfig) -> None:
        self._ppo = config.ppo
        self._shaping = config.shaping
        self._penalty_clip = config.effective_penalty_clip
        self._penalty_coef = config.ppo.kl_ctl
        self._scores = RunningMoments()

    def clipped_penalty(self, penalty: Tensor) -> Tensor:
        """The penalty [B, R] that is charged."""
        return clip_penalty(penalty, penalty_coef=self._penalty_coef, clip=self._penalty_clip)

    def normalized(self, score: Tensor) -> Tensor:
        """Scores [B] in standard deviations from the mean of all earlier steps; as they are in the first step."""
        if not (self._shaping.normalize_rewards and self._scores.count):
            return score
        return (score - self._scores.mean) / self._scores.std

    def rewards(self, penalty: Tensor, score: Tensor, rollout: Rollout) -> Tensor:
        """Token rewards [B, R] from penalties [B, R] and normalized scores [B]."""
        return shape_rewards(
            penalty,
            score,
            rollout.response_mask,
            penalty_coef=self._penalty_coef,
            score_clip=self._ppo.reward_clip,
            deduction=torch.where(rollout.ended, 0.0, self._shaping.missing_eos_penalty),
        )

    def observe(self, experience: Experience) -> Sums:
        """Learn from a finished PPO step; metrics of what it ran with. All ranks call it together."""
        shaping = self._shaping
        ran_with: dict[str, tuple[float, float]] = {}
        if shaping.penalty_target is not None:
            ran_with["penalty_coef"] = (self._penalty_coef, 1.0)
        if shaping.normalize_rewards:
            ran_with["running_reward_mean"] = (self._scores.mean, 1.0)
            ran_with["running_reward_std"] = (self._scores.std, 1.0)
        if ran_with:
            self._learn(experience)
        return Sums.of(ran_with)

    def _learn(self, experience: Experience) -> None:
        shaping = self._shaping
        mask = experience.response_mask
        usable = mask.any(dim=-1)
        score = torch.where(usable, experience.score, 0.0).double()
        penalty = torch.where(mask, experience.penalty, 0.0).double()
        local = torch.stack([usable.sum(), score.sum(), score.square().sum(), mask.sum(), penalty.sum()])
        answers, total, squares, tokens, penalties = reduce_sum(local).tolist()
        self._scores = self._scores.joined(answers, total, squares)
        if shaping.penalty_target is not None and tokens:
            self._penalty_coef = adapted_coefficient(
                self._penalty_coef,
                penalties / tokens,
                target=shaping.penalty_target,
                answers=answers,
                horizon=shaping.penalty_horizon,
            )

    def state_dict(self) -> dict[str, float]:
        """What has to be saved for training to go on as if it had not stopped."""
        scores = self._scores
        return {
            "penalty_coef": self._penalty_coef,
            "score_count": scores.count,
            "score_mean": scores.mean,
            "score_squared_deviations": scores.squared_deviations,
        }

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave."""
        self._penalty_coef = state["penalty_coef"]
        self._scores = RunningMoments(state["score_count"], state["score_mean"], state["score_squared_deviations"])

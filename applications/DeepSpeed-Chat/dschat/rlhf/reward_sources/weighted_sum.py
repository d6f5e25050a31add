"""Several reward sources as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores


@dataclass(frozen=True)
class WeightedSum(RewardSource):
    """The weighted sum of several sources' scores."""

    parts: tuple[tuple[float, RewardSource], ...]
    """Weight and source, in the order in which they are asked: those that all ranks run together come first."""

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B] float32."""
        scores = [weight * source.score(rollout).values for weight, source in self.parts]
        return SequenceScores(torch.stack(scores).sum(dim=0))

"""Several reward sources as one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource


@dataclass(frozen=True)
class WeightedSum:
    """The weighted sum of several sources' scores."""

    parts: tuple[tuple[float, RewardSource], ...]
    """Weight and source, in the order in which they are asked: those that all ranks run together come first."""

    def score(self, rollout: Rollout) -> Tensor:
        """Scores [B] float32."""
        return torch.stack([weight * source.score(rollout) for weight, source in self.parts]).sum(dim=0)

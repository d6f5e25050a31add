"""What a reward source is: one score per answer."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from dschat.rlhf.experience import Rollout


class RewardSource(Protocol):
    """Scores answers. A new one is a new file beside this and an arm in `build_reward_source`."""

    def score(self, rollout: Rollout) -> Tensor:
        """Scores [B] float32 of a rollout's B answers, higher is better.

        Every rank calls it together, once per rollout. Scores of unusable rows (`rollout.usable`) are ignored.
        """
        ...

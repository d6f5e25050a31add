"""No regularization."""

from __future__ import annotations

import torch

from dschat.rlhf.regularizers.base import Penalty, ResponsePositions


class NoRegularizer:
    """Leaves the policy free: the sequence score is the only reward."""

    def penalty(self, positions: ResponsePositions) -> Penalty:
        """Zeros [N]."""
        return Penalty(torch.zeros_like(positions.policy_log_probs))

    def describe(self) -> str:
        """One sentence."""
        return "no regularizer: nothing holds the policy near the reference"

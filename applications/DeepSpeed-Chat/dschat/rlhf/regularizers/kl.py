"""Kullback-Leibler divergence from the reference."""

from __future__ import annotations

from dataclasses import dataclass

from dschat.rlhf.regularizers.base import Penalty, ScoredPositions
from dschat.rlhf.regularizers.f_divergence import f_divergence_penalty


@dataclass(frozen=True)
class KLRegularizer:
    """The log-ratio of the sampled token, whose mean under the policy is KL(policy || reference)."""

    low_variance: bool = False
    """Use log-ratio + 1/ratio - 1, never negative, with the same mean (k3 in Schulman's note on approximating KL)."""

    def penalty(self, positions: ScoredPositions) -> Penalty:
        """Log-ratios [N]."""
        log_ratio = positions.policy_log_probs - positions.reference_log_probs
        return Penalty(f_divergence_penalty(log_ratio, kind="rkl", low_variance=self.low_variance))

    def describe(self) -> str:
        """One sentence."""
        return "regularizer: KL(policy || reference), one log-ratio per token" + (
            ", variance-reduced" if self.low_variance else ""
        )

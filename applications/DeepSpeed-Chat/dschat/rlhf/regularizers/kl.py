"""Kullback-Leibler divergence from the reference."""

from __future__ import annotations

from dataclasses import dataclass

from dschat.config.regularizers import KLEstimator
from dschat.rlhf.regularizers.base import Penalty, ResponsePositions
from dschat.rlhf.regularizers.f_divergence import f_divergence_penalty


@dataclass(frozen=True)
class KLRegularizer:
    """KL(policy || reference), estimated from the sampled token with the log-ratio r (Schulman, "Approximating KL").

    k1 is r; k2 is r^2 / 2, never negative, of low variance, and biased; k3 is r + exp(-r) - 1, never negative, with the
    mean of k1.
    """

    estimator: KLEstimator

    def penalty(self, positions: ResponsePositions) -> Penalty:
        """Estimates [N]."""
        log_ratio = positions.policy_log_probs - positions.reference_log_probs
        if self.estimator == "k2":
            return Penalty(log_ratio.square() / 2)
        return Penalty(f_divergence_penalty(log_ratio, kind="rkl", low_variance=self.estimator == "k3"))

    def describe(self) -> str:
        """One sentence."""
        return f"regularizer: KL(policy || reference), one estimate {self.estimator} per token"

from __future__ import annotations
import torch
from dataclasses import dataclass
from dschat.rlhf.regularizers.base import Penalty


def f_divergence_penalty(log_ratio, *, kind, alpha=0.5, low_variance=False):
    x = log_ratio.clamp(-20, 20).exp()
    u = (-log_ratio).clamp(-20, 20).exp()
    r = log_ratio
    return {
        "rkl": r + (u - 1 if low_variance else 0),
        "fkl": -r * u,
        "js": r - (1 + u) * ((x + 1) / 2).log(),
        "alpha": (u**alpha - alpha * u - (1 - alpha)) / (alpha * (alpha - 1)),
        "tv": 0.5 * (1 - u).abs(),
        "chi": u * (x - 1) ** 2,
    }[kind]


@dataclass(frozen=True)
class FDivergenceRegularizer:
    kind: str
    alpha: float
    low_variance: bool
    limit: float | None

    def penalty(self, p):
        v = f_divergence_penalty(
            p.policy_log_probs - p.reference_log_probs, kind=self.kind, alpha=self.alpha, low_variance=self.low_variance
        )
        return Penalty(v.clamp(-self.limit, self.limit) if self.limit else v)

    def describe(self):
        return self.kind

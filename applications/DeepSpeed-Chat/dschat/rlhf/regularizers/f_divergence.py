"""f-divergences between policy and reference, estimated from the sampled tokens."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F

from dschat.config.regularizers import DivergenceConfig, DivergenceKind
from dschat.rlhf.regularizers.base import Penalty, ResponsePositions

LOW_VARIANCE_KINDS = ("rkl", "fkl")


def f_divergence_penalty(
    log_ratio: Tensor, *, kind: DivergenceKind, alpha: float = DivergenceConfig.f_div_alpha, low_variance: bool = False
) -> Tensor:
    """One-sample estimate of an f-divergence, whose mean over tokens of the policy is the divergence.

    With rho = log pi(a) - log pi_ref(a), u = exp(-rho), x = exp(rho):

        rkl    rho                                    KL(pi || ref)        low variance: rho + u - 1
        fkl    -rho u                                 KL(ref || pi)        low variance: 1 - u - rho u
        js     rho - (1 + u) log((1 + x) / 2)         2 JS(pi, ref)
        alpha  (alpha u + 1 - alpha - u^alpha) / (alpha (1 - alpha))
        tv     |1 - u| / 2                            total variation
        chi    u (x - 1)^2                            chi-squared(pi || ref)

    The low-variance forms add a term whose mean is 0 and are never negative (Schulman, "Approximating KL divergence").

    Args:
        log_ratio: rho, any shape such as [N] or [B, R]; computed in float32.
        kind: which divergence.
        alpha: order of the alpha-divergence, between 0 and 1.
        low_variance: for rkl and fkl alone.
    Returns:
        float32 of the same shape, never NaN; +inf where the value is beyond float32 (|rho| above 88).
    Raises:
        ValueError: an unknown kind, alpha out of range, or low_variance with another kind.
    """
    if low_variance and kind not in LOW_VARIANCE_KINDS:
        raise ValueError(f"the low-variance form exists for rkl and fkl, got {kind}")
    if kind == "alpha" and not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}")
    rho = log_ratio.float()
    inverse = (-rho).exp()
    match kind:
        case "rkl":
            return rho + (-rho).expm1() if low_variance else rho
        case "fkl":
            return 1 - (1 + rho) * inverse if low_variance else -rho * inverse
        case "js":
            return rho - (1 + inverse) * (F.softplus(rho) - math.log(2))
        case "alpha":
            # the factored form where u is large: alpha u - u^alpha would be inf - inf
            grown = (alpha - ((1 - alpha) * rho.clamp_max(0)).exp()) * inverse
            shrunk = alpha * inverse - (-alpha * rho.clamp_min(0)).exp()
            return (grown.where(rho < 0, shrunk) + (1 - alpha)) / (alpha * (1 - alpha))
        case "tv":
            return (-rho).expm1().abs() / 2
        case "chi":
            return 4 * (rho / 2).sinh().square()
    raise ValueError(f"unknown divergence {kind!r}; choose one of rkl, fkl, js, alpha, tv, chi")


@dataclass(frozen=True)
class FDivergenceRegularizer:
    """An f-divergence other than KL, whose estimate wants a clip because its tails are exponential in the log-ratio."""

    kind: DivergenceKind
    alpha: float
    """Order of the alpha-divergence."""
    low_variance: bool

    def penalty(self, positions: ResponsePositions) -> Penalty:
        """Estimates [N]."""
        values = f_divergence_penalty(
            positions.policy_log_probs - positions.reference_log_probs,
            kind=self.kind,
            alpha=self.alpha,
            low_variance=self.low_variance,
        )
        return Penalty(values)

    def describe(self) -> str:
        """One sentence."""
        return f"regularizer: f-divergence {self.kind}, estimated from the sampled tokens"

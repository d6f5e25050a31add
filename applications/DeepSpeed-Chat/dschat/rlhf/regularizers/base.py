"""What a policy regularizer is: a penalty for each sampled token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ResponsePositions:
    """N response positions, as the policy and the reference see them when the answers have just been sampled."""

    policy_logits: Tensor
    """[N, V], in the model's precision; V counts real tokens only."""
    reference_logits: Tensor
    """[N, V]."""
    tokens: Tensor
    """[N] int64, the sampled tokens."""
    policy_log_probs: Tensor
    """[N] float32 of the sampled tokens."""
    reference_log_probs: Tensor
    """[N] float32."""


@dataclass(frozen=True)
class Penalty:
    """A regularizer's verdict on N positions."""

    values: Tensor
    """[N] float32; larger means farther from the reference."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Named diagnostics, [N] each; the run logs their means over all tokens."""


class Regularizer(Protocol):
    """Keeps the policy near the reference. A new one is a new file beside this and an arm in `build_regularizer`."""

    def penalty(self, positions: ResponsePositions) -> Penalty:
        """Penalty [N] of each sampled token; called without gradients, with N > 0."""
        ...

    def describe(self) -> str:
        """Plain words for the start of the log: what is computed, and whether its settings suit this model."""
        ...

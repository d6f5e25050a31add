"""What a reward source is: one score per answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from dschat.rlhf.experience import Rollout


@dataclass(frozen=True)
class SequenceScores:
    """A reward source's verdict on a rollout's B answers."""

    values: Tensor
    """[B] float32, higher is better. Values of unusable rows (`rollout.usable`) and of unscored ones are ignored."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """Named diagnostics, [B] each; the run logs their means over the answers that have one, NaN meaning that an answer
    has none."""
    unscored: Tensor | None = None
    """[B] bool, answers that could not be scored: their rows are dropped, with all that belongs to them. None: none."""


class RewardSource(Protocol):
    """Scores answers. A new one is a new file beside this and an arm in `build_reward_source`.

    Every rank makes each call together with the others, once per rollout. A class that names this one as its base only
    has to define `score`.
    """

    def begin(self, rollout: Rollout) -> None:
        """Start what can go on beside the scoring forwards; `score` for the same rollout follows."""
        return None

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores of a rollout, whether or not `begin` has seen it."""
        ...

    def close(self) -> None:
        """Give back processes and the like; nothing is scored afterwards."""
        return None

"""PPO written out row by row and token by token in Python floats, for comparison with the vectorised package."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class RowResult:
    """One row's rewards, advantages and returns, one entry per response token."""

    rewards: list[float]
    advantages: list[float]
    returns: list[float]


def ppo_row(
    penalties: list[float],
    score: float,
    values: list[float],
    *,
    beta: float,
    clip: float,
    gamma: float,
    lam: float,
) -> RowResult:
    """Rewards, generalized advantages and returns of one answer; the lists hold its response tokens alone."""
    rewards = [-beta * p for p in penalties]
    if rewards:
        rewards[-1] += max(-clip, min(clip, score))
    advantages = discounted_advantages(rewards, values, gamma=gamma, lam=lam)
    return RowResult(rewards, advantages, [a + v for a, v in zip(advantages, values, strict=True)])


def discounted_advantages(rewards: list[float], values: list[float], *, gamma: float, lam: float) -> list[float]:
    """The sum over later steps k of (gamma lam)^(k - t) delta_k, for each step t."""
    n = len(rewards)
    advantages = []
    for t in range(n):
        total = 0.0
        for k in range(t, n):
            after = values[k + 1] if k + 1 < n else 0.0
            total += (gamma * lam) ** (k - t) * (rewards[k] + gamma * after - values[k])
        advantages.append(total)
    return advantages


def policy_term(new: float, old: float, advantage: float, clip: float, dual: float | None = None) -> float:
    """The clipped surrogate's loss of one token, doubly clipped with `dual`."""
    ratio = math.exp(new - old)
    gain = min(advantage * ratio, advantage * min(max(ratio, 1 - clip), 1 + clip))
    if dual is not None and advantage < 0:
        gain = max(gain, dual * advantage)
    return -gain


def value_term(new: float, old: float, target: float, clip: float) -> float:
    """The clipped value loss of one token."""
    held = min(max(new, old - clip), old + clip)
    return 0.5 * max((new - target) ** 2, (held - target) ** 2)

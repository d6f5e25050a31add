"""The arithmetic of PPO on [B, R] tensors: rewards, advantages, clipped losses. Pure functions, float32.

B rows, R response width. `mask` is True on a row's response tokens, which start at position 0, up to and including EOS.
"""

from __future__ import annotations

import torch
from torch import Tensor

WHITENING_FLOOR = 1e-8  # of the variance, so that equal advantages become 0


def clip_penalty(penalty: Tensor, *, penalty_coef: float, clip: float | None) -> Tensor:
    """Penalties [B, R], bounded so that penalty_coef times each lies within +-clip; None for no bound."""
    if clip is None or penalty_coef == 0:
        return penalty
    limit = clip / penalty_coef
    return penalty.clamp(-limit, limit)


def shape_rewards(
    penalty: Tensor,
    score: Tensor,
    mask: Tensor,
    *,
    penalty_coef: float,
    score_clip: float,
    deduction: Tensor | float = 0.0,
) -> Tensor:
    """Token rewards of PPO with a policy regularizer (WPR, arXiv 2602.01685, Sec. 3).

    Args:
        penalty: [B, R] float32, one value per response token; larger means farther from the reference.
        score: [B] sequence score, clipped to +-score_clip.
        mask: [B, R] bool; rows that are all False get no reward.
        penalty_coef: beta.
        score_clip: above 0.
        deduction: taken from the clipped score; [B], or the same for all.
    Returns:
        [B, R] float32: -penalty_coef * penalty on response tokens, plus the score on each row's last one; 0 elsewhere.
    """
    # without a coefficient an infinite penalty is no penalty, not NaN
    rewards = torch.where(mask, -penalty_coef * penalty, 0.0) if penalty_coef else torch.zeros_like(penalty)
    last = (mask.sum(dim=-1, keepdim=True) - 1).clamp_min(0)
    scores = torch.where(mask.any(dim=-1), score.clamp(-score_clip, score_clip) - deduction, 0.0)
    return rewards.scatter_add(-1, last, scores[:, None])


def generalized_advantages(
    rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimation (Schulman et al. 2016, arXiv 1506.02438, Eq. 16).

        delta_t = r_t + gamma V_{t+1} - V_t,   A_t = delta_t + gamma lam A_{t+1},   return_t = A_t + V_t

    with V = 0 after a row's last token.

    Args:
        rewards: [B, R] float32.
        values: [B, R] float32, V_t before token t; entries off the mask are ignored.
        mask: [B, R] bool.
        gamma: discount, 0 to 1.
        lam: 0 to 1.
    Returns:
        advantages and returns, [B, R] float32, 0 off the mask.
    """
    rewards, values = torch.where(mask, rewards, 0.0), torch.where(mask, values, 0.0)
    advantages = torch.zeros_like(rewards)
    following = torch.zeros_like(rewards[:, 0])
    next_value = torch.zeros_like(following)
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        following = delta + gamma * lam * following
        advantages[:, t] = following
        next_value = values[:, t]
    advantages = torch.where(mask, advantages, 0.0)
    return advantages, advantages + values


def masked_sums(values: Tensor, mask: Tensor) -> Tensor:
    """Number, sum and sum of squares of the entries of values [B, R] under mask [B, R]; [3] float64.

    Those of several ranks may be added.
    """
    kept = torch.where(mask, values, 0.0).double()
    return torch.stack([mask.sum(), kept.sum(), kept.square().sum()])


def whiten(values: Tensor, mask: Tensor, sums: Tensor) -> Tensor:
    """Values shifted and scaled to mean 0 and variance 1.

    Args:
        values: [B, R] float32.
        mask: [B, R] bool.
        sums: [3], as `masked_sums` gives them, of all values that are whitened together.
    Returns:
        [B, R] float32, 0 off the mask.
    """
    count, total, squares = sums.double()
    mean = total / count.clamp_min(1.0)
    variance = (squares / count.clamp_min(1.0) - mean.square()).clamp_min(0.0)
    whitened = (values - mean.to(values.dtype)) * (variance + WHITENING_FLOOR).rsqrt().to(values.dtype)
    return torch.where(mask, whitened, 0.0)


def policy_loss(
    log_probs: Tensor,
    old_log_probs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    """Clipped surrogate loss of the policy (Schulman et al. 2017, arXiv 1707.06347, Eq. 7), summed over tokens.

    Sums, not means: the caller divides by the number of tokens of the whole optimizer step, so that every token weighs
    the same however the rows are spread over ranks and micro-batches.

    Args:
        log_probs: [B, R] float32 of the policy in training.
        old_log_probs: [B, R] float32 of the policy that sampled.
        advantages: [B, R] float32.
        mask: [B, R] bool.
        clip: the ratio's distance from 1 at which the gain stops growing.
        dual_clip: c, above 1: a token of negative advantage A loses c |A| at most, however likely it has become
            (Ye et al. 2020, arXiv 1912.09729, Eq. 5); None for no such bound.
    Returns:
        the summed loss, and the number of tokens whose ratio was clipped, as scalars.
    """
    ratio = torch.where(mask, log_probs - old_log_probs, 0.0).exp()
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip)
    losses = torch.maximum(-advantages * ratio, -advantages * clipped)
    if dual_clip is not None:
        losses = torch.where(advantages < 0, torch.minimum(losses, -advantages * dual_clip), losses)
    return torch.where(mask, losses, 0.0).sum(), (mask & (ratio != clipped)).sum()


def value_loss(values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip: float) -> Tensor:
    """Half the squared error of the critic, pessimistic about changes beyond +-clip, summed over tokens.

    Args:
        values: [B, R] float32 of the critic in training.
        old_values: [B, R] float32 from when the answers were sampled.
        returns: [B, R] float32.
        mask: [B, R] bool.
        clip: largest change in value that pays.
    Returns:
        the summed loss, a scalar.
    """
    clipped = old_values + (values - old_values).clamp(-clip, clip)
    losses = 0.5 * torch.maximum((values - returns).square(), (clipped - returns).square())
    return torch.where(mask, losses, 0.0).sum()

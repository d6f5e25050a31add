"""Macro actions: answers cut into segments that are decided, rewarded and valued as one. Pure functions.

MA-RLHF (Chai et al., ICLR 2025, arXiv 2410.02743). B rows, R response width, S segments of a row, S <= R. `mask` is
True on a row's response tokens, which start at position 0; `starts` is True where a segment begins. Every row is cut
on its own, so that neither its neighbours nor padding change anything. Segments of one token are plain PPO.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from dschat.rlhf.ppo_math import generalized_advantages

TerminationCondition = Literal["fixed", "randomized", "ppl", "parsing"]
ValueFunction = Literal["equal", "unit", "position"]

RANDOM_LENGTHS = (1, 2, 3, 5, 10)
"""The published segment lengths of the randomized condition, each of which occurs `repeat_times` times."""


def segment_boundaries(
    mask: Tensor,
    *,
    condition: TerminationCondition,
    ngram: int = 1,
    lengths: Tensor | None = None,
    log_probs: Tensor | None = None,
    parsed: Sequence[Sequence[int] | None] | None = None,
) -> Tensor:
    """Where the segments of each answer start.

        fixed       at every ngram-th token
        randomized  after lengths[b, 0] tokens, lengths[b, 1] more, ...; what is left then is one segment
        ppl         at a token whose perplexity is above that of the token before it
        parsing     at the tokens parsed[b]; as fixed in a row whose entry is None

    Args:
        mask: [B, R] bool.
        condition: which rule.
        ngram: tokens per segment, at least 1.
        lengths: [B, M] int64, each at least 1; for randomized alone, see `random_lengths`.
        log_probs: [B, R] of the tokens under the reference; for ppl alone.
        parsed: for parsing alone: of each row the positions where its constituents start.
    Returns:
        [B, R] bool, False off the mask, True on the first token of every answer.
    Raises:
        ValueError: the condition's input is missing, or ngram is below 1.
    """
    if ngram < 1:
        raise ValueError(f"ngram must be at least 1, got {ngram}")
    at_ngram = torch.arange(mask.shape[1], device=mask.device).expand_as(mask) % ngram == 0
    match condition:
        case "fixed":
            starts = at_ngram
        case "randomized" if lengths is not None:
            starts = _after_lengths(lengths, mask)
        case "ppl" if log_probs is not None:
            starts = torch.zeros_like(mask)
            starts[:, 1:] = log_probs[:, 1:] < log_probs[:, :-1]
        case "parsing" if parsed is not None:
            starts = at_ngram.clone()
            for row, positions in enumerate(parsed):
                if positions is not None:
                    starts[row] = False
                    starts[row, list(positions)] = True
        case _:
            raise ValueError(f"segments by {condition!r} lack their input; see segment_boundaries")
    starts = starts.clone()
    starts[:, :1] = True
    return starts & mask


def random_lengths(seeds: Sequence[int], *, repeat_times: int) -> Tensor:
    """Segment lengths of B rows in random order.

    Args:
        seeds: one of each row.
        repeat_times: how often each of RANDOM_LENGTHS occurs, m.
    Returns:
        [B, K] int64 on the CPU, K = m times the number of RANDOM_LENGTHS.
    """
    deck = torch.tensor(RANDOM_LENGTHS).repeat(repeat_times)
    shuffles = [torch.randperm(len(deck), generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack([deck[shuffle] for shuffle in shuffles])


def segment_advantages(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    starts: Tensor,
    *,
    value_function: ValueFunction,
    gamma: float,
    lam: float,
) -> tuple[Tensor, Tensor]:
    """Generalized advantages between segments, given to each segment's tokens (arXiv 2410.02743, Sec. 3.1).

    A segment's reward is the sum of its tokens' rewards; gamma and lambda count segments. Its value is a weighted mean
    of its tokens' values: `equal` weighs them alike, `position` the i-th by 1 / i, `unit` the last one alone.

    Args:
        rewards: [B, R] float32.
        values: [B, R] float32, the critic before each token.
        mask: [B, R] bool.
        starts: [B, R] bool, as `segment_boundaries` gives it.
        value_function: how a segment's value follows from its tokens'.
        gamma: discount per segment, 0 to 1.
        lam: 0 to 1.
    Returns:
        advantages and returns, [B, R] float32, the same on all tokens of a segment, 0 off the mask. With segments of
        one token they are those of `generalized_advantages`, bit for bit.
    """
    segment = (starts.cumsum(dim=-1) - 1).clamp_min(0)
    weights = torch.where(mask, _weights(mask, starts, value_function), 0.0)
    weighted = torch.where(mask, weights * values, 0.0)
    segment_rewards, totals, weighted_values = (
        torch.zeros_like(rewards).scatter_add(-1, segment, tokens)
        for tokens in (torch.where(mask, rewards, 0.0), weights, weighted)
    )
    is_segment = totals > 0
    segment_values = torch.where(is_segment, weighted_values / totals, 0.0)
    advantages, returns = generalized_advantages(segment_rewards, segment_values, is_segment, gamma=gamma, lam=lam)
    of_tokens = [torch.where(mask, of_segments.gather(-1, segment), 0.0) for of_segments in (advantages, returns)]
    return of_tokens[0], of_tokens[1]


def _after_lengths(lengths: Tensor, mask: Tensor) -> Tensor:
    """[B, R] bool, True where the running sums of lengths [B, M] fall into the width."""
    ends = lengths.to(mask.device).cumsum(dim=-1)
    starts = torch.zeros(mask.shape[0], mask.shape[1] + 1, dtype=torch.bool, device=mask.device)
    # what lies beyond the width goes to the column that is cut off
    return starts.scatter(-1, ends.clamp_max(mask.shape[1]), True)[:, :-1]


def _weights(mask: Tensor, starts: Tensor, value_function: ValueFunction) -> Tensor:
    """[B, R] float32 weight of each token's value in its segment, not normalised; meaningless off the mask."""
    match value_function:
        case "equal":
            return torch.ones(mask.shape, device=mask.device)
        case "position":
            positions = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
            begin = torch.where(starts, positions, 0).cummax(dim=-1).values
            return 1.0 / (positions - begin + 1)
        case "unit":
            follows = torch.zeros_like(mask)
            follows[:, :-1] = mask[:, 1:] & ~starts[:, 1:]
            return (~follows).float()
    raise ValueError(f"unknown value function {value_function!r}; choose one of equal, unit, position")

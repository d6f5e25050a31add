"""One pass over the vocabulary: the most probable tokens and the log-normalizer of each position.

Legend: N scored positions, V vocabulary, k tokens kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

_BLOCK_ELEMENTS = 2**20  # logits held in float32 at once; small enough to stay in a CPU's cache between the passes
_ACCELERATOR_BLOCK_ELEMENTS = 2**26
_TERMS = 16  # float32 terms added before float64 takes over
_MIN_GROUP = 4  # shorter groups cost more than they spare


class TopTokens(NamedTuple):
    """What one pass over [N, V] logits keeps.

    Attributes:
        ids: [N, k] int64, the tokens with the largest logits, in no particular order.
        log_normalizer: [N] float64, log of the sum of exp(logits); the terms are float32.
        is_finite: [N] bool, False where a logit is NaN or inf.
    """

    ids: Tensor
    log_normalizer: Tensor
    is_finite: Tensor


def top_tokens(logits: Tensor, top_k: int) -> TopTokens:
    """Equivalent to `logits.topk(top_k)` and `logits.float().logsumexp(-1)`, block by block and in float32.

    Args:
        logits: [N, V], any floating dtype and any row stride.
        top_k: k, between 1 and V.
    """
    count, vocab_size = logits.shape
    ids = torch.empty(count, top_k, dtype=torch.int64, device=logits.device)
    log_normalizer = torch.empty(count, dtype=torch.float64, device=logits.device)
    is_finite = torch.empty(count, dtype=torch.bool, device=logits.device)
    elements = _BLOCK_ELEMENTS if logits.device.type == "cpu" else _ACCELERATOR_BLOCK_ELEMENTS
    rows_per_block = max(1, elements // vocab_size)
    scratch = torch.empty(min(rows_per_block, count), vocab_size, dtype=torch.float32, device=logits.device)
    for start in range(0, count, rows_per_block):
        block = slice(start, min(start + rows_per_block, count))
        rows = logits[block].float()
        ids[block] = largest_columns(rows, top_k)
        is_finite[block] = rows.sum(dim=1).isfinite()
        log_normalizer[block] = _logsumexp(rows, ids[block], scratch[: len(rows)])
    return TopTokens(ids, log_normalizer, is_finite)


def _logsumexp(rows: Tensor, largest: Tensor, scratch: Tensor) -> Tensor:
    """[N] float64 logsumexp of [N, V] rows; the few `largest` columns [N, k] count in float64, the others in float32.

    An error of 1e-7, usual for a float32 sum, would make the tail mass depend on the order of the vocabulary.
    """
    values = rows.gather(1, largest).double()
    shift = values.amax(dim=1, keepdim=True)
    others = torch.sub(rows, shift.float(), out=scratch).scatter_(1, largest, -torch.inf).exp_()
    columns = others.shape[1] // _TERMS * _TERMS
    partial = others[:, :columns].unflatten(1, (_TERMS, -1)).sum(dim=1)
    rest = partial.sum(dim=1, dtype=torch.float64) + others[:, columns:].sum(dim=1, dtype=torch.float64)
    return ((values - shift).exp().sum(dim=1) + rest).log_() + shift[:, 0]


def largest_columns(rows: Tensor, count: int) -> Tensor:
    """Columns of the `count` largest entries of each row; as `rows.topk(count).indices`, in no particular order.

    Args:
        rows: [N, V].
        count: between 1 and V.
    Returns:
        [N, count] int64. Which of several equal entries is taken at the boundary is not specified.
    """
    candidates = _candidates(rows, count)
    if candidates is None:
        return rows.topk(count, dim=1, sorted=False).indices
    best = rows.gather(1, candidates.columns).topk(count, dim=1, sorted=False).indices
    return candidates.columns.gather(1, best)


def largest_and_last(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Columns [N] int64 of the largest and of the `count`-th largest entry of each row.

    As the first and last column of `rows.topk(count)`, without ordering those between. At least `count` candidates
    reach the bound of `_candidates` and seldom many more, so the wanted entry is among the few smallest of them.

    Args:
        rows: [N, V], no NaN.
        count: between 1 and V.
    """
    candidates = _candidates(rows, count)
    if candidates is None:
        columns = rows.topk(count, dim=1).indices
        return columns[:, 0], columns[:, -1]
    values = rows.gather(1, candidates.columns)
    reach = values >= candidates.bound
    surplus = reach.sum(dim=1, keepdim=True) - count
    smallest = values.masked_fill(~reach, torch.inf).topk(int(surplus.max()) + 1, dim=1, largest=False).indices
    chosen = torch.cat([values.argmax(dim=1, keepdim=True), smallest.gather(1, surplus)], dim=1)
    largest, last = candidates.columns.gather(1, chosen).unbind(dim=1)
    return largest, last


class _Candidates(NamedTuple):
    """Where the largest entries of [N, V] rows can be.

    Attributes:
        columns: [N, C] int64; the `count` largest entries of a row are among them.
        bound: [N, 1]; at least `count` entries of the row reach it.
    """

    columns: Tensor
    bound: Tensor


def _candidates(rows: Tensor, count: int) -> _Candidates | None:
    """Columns that can hold one of the `count` largest entries of [N, V] rows, None where it does not pay to narrow.

    A full top-k moves every value of the row about. Here the row is cut into groups, read once for their maxima, and
    only the groups with the `count` largest maxima can hold one of the `count` largest entries.
    """
    columns = rows.shape[1]
    group = 2 ** round(0.5 * math.log2(columns / count))  # balances the two selections
    num_groups = columns // group
    if group < _MIN_GROUP or num_groups < count:
        return None
    # Group g holds the columns g, g + num_groups, g + 2 num_groups, ...: its maximum is a maximum over whole vectors.
    maxima = rows[:, : group * num_groups].unflatten(1, (group, num_groups)).amax(dim=1)
    values, groups = maxima.topk(count, dim=1, sorted=False)
    members = torch.arange(group, device=rows.device) * num_groups
    candidates = (groups[:, :, None] + members).flatten(1)
    if group * num_groups < columns:
        rest = torch.arange(group * num_groups, columns, device=rows.device)
        candidates = torch.cat([candidates, rest.expand(len(rows), -1)], dim=1)
    return _Candidates(candidates, values.amin(dim=1, keepdim=True))

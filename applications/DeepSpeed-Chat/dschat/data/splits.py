"""Which rows of a dataset belong to which step.

`permutation_parts` is the split of DeepSpeed-Chat and MA-RLHF, so that `--data_split 2,4,4 --seed 1234` selects the
rows that published checkpoints were trained on; `grouped_parts` also keeps all rows of one post or problem together.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from dschat.config.data import DataConfig, SplitBy
from dschat.errors import UserError


def parse_proportions(text: str, *, part: int | None = None) -> tuple[float, ...]:
    """Read a split such as "2,4,4": the proportions of steps 1, 2 and 3.

    Args:
        text: comma-separated numbers, at least one above 0; they need not sum to anything.
        part: where given, the split must have a part of this number, from 0.
    Raises:
        UserError: not numbers, negative, not finite, all zero, or without the part.
    """
    try:
        proportions = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise UserError(
            f'--data_split must be numbers separated by commas, got "{text}"; the default is 2,4,4'
        ) from error
    if not (all(part >= 0 for part in proportions) and math.isfinite(sum(proportions))):
        raise UserError(f'--data_split must hold finite numbers of at least 0, got "{text}"; the default is 2,4,4')
    if sum(proportions) == 0:
        raise UserError(f'--data_split must have a part above 0, got "{text}"; the default is 2,4,4')
    needed = 1 if part is None else part + 1
    if len(proportions) < needed:
        raise UserError(
            f'--data_split "{text}" has {len(proportions)} parts, but this is step {needed}; '
            "give three, one for each step, such as 2,4,4"
        )
    return proportions


def permutation_parts(num_rows: int, proportions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Permute the rows and cut the permutation into parts, as DeepSpeed-Chat does.

    Boundaries are cumulative sums of round(p_i · n). What rounding adds or takes is given to the first part that is
    not empty by definition, by shifting every boundary after it; where the published arithmetic would make parts
    overlap (few rows, many parts) boundaries stop at 0.

    Args:
        num_rows: n, at least 0.
        proportions: at least one above 0; a part of proportion 0 is always empty.
        seed: of the permutation, in numpy.random.RandomState.
    Returns:
        One int64 array of row indices for each proportion; together a permutation of 0..n-1.
    """
    shares = np.asarray(proportions, dtype=np.float64) / float(sum(proportions))
    boundaries = np.concatenate([[0], np.cumsum([round(share * float(num_rows)) for share in shares])])
    first = int(np.flatnonzero(shares)[0])
    boundaries[first + 1 :] -= boundaries[-1] - num_rows
    boundaries = np.maximum(boundaries, 0)
    order = _permutation(num_rows, seed)
    return [order[start:end] for start, end in pairwise(boundaries)]


def grouped_parts(groups: Sequence[str], proportions: Sequence[float], seed: int) -> list[np.ndarray]:
    """Cut into parts so that all rows of a group (a post, a problem) fall into one.

    Groups are permuted and laid end to end by their number of rows; each goes to the part in which its middle lies, so
    a part's size misses its proportion by at most half a group at either end.

    Args:
        groups: the group of each of the n rows.
        proportions, seed: as in `permutation_parts`.
    Returns:
        One int64 array of row indices for each proportion, rows in permuted order; together a permutation of 0..n-1.
    """
    numbers: dict[str, int] = {}
    group_of_row = np.array([numbers.setdefault(group, len(numbers)) for group in groups], dtype=np.int64)
    sizes = np.bincount(group_of_row, minlength=len(numbers))
    group_order = _permutation(len(numbers), seed)
    middles = np.cumsum(sizes[group_order]) - sizes[group_order] / 2
    ends = np.cumsum(proportions) / float(sum(proportions)) * len(groups)
    part_of_group = np.zeros(len(numbers), dtype=np.int64)
    part_of_group[group_order] = np.searchsorted(ends[:-1], middles, side="right")
    order = _permutation(len(groups), seed)
    part_of_row = part_of_group[group_of_row][order]
    return [order[part_of_row == part] for part in range(len(proportions))]


def part_indices(
    num_rows: int,
    part: int,
    *,
    data_split: str,
    seed: int,
    split_by: SplitBy = DataConfig.split_by,
    groups: Sequence[str] | None = None,
) -> np.ndarray:
    """The rows of one part of the split.

    Args:
        num_rows: n, rows of the dataset.
        part: its number, from 0.
        data_split: such as "2,4,4".
        seed: of the permutation.
        split_by: "row" for the published split, "group" to keep the rows of a group in one part.
        groups: the group of each row; needed for "group".
    Returns:
        [m] int64 row indices in permuted order.
    Raises:
        UserError: see `parse_proportions`.
    """
    proportions = parse_proportions(data_split, part=part)
    if split_by == "group":
        assert groups is not None and len(groups) == num_rows
        parts = grouped_parts(groups, proportions, seed)
    else:
        parts = permutation_parts(num_rows, proportions, seed)
    return parts[part]


def _permutation(count: int, seed: int) -> np.ndarray:
    """Permutation of 0..count-1 as int64; RandomState, because numpy keeps its stream the same for ever."""
    order = np.arange(count, dtype=np.int64)
    np.random.RandomState(seed).shuffle(order)
    return order

"""The order in which training visits its rows, and which of them a rank takes: functions of numbers alone.

A resumed run, or one on another number of ranks, sees the same batches.
"""

from __future__ import annotations

import math

import numpy as np


def epoch_order(num_rows: int, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch visits the rows.

    Returns:
        [num_rows] int64, a permutation that depends on seed and epoch alone.
    """
    return np.random.RandomState([seed, epoch]).permutation(num_rows)


def steps_per_epoch(num_rows: int, rows_per_step: int) -> int:
    """Steps that one pass over the rows takes; the last may be short."""
    return math.ceil(num_rows / rows_per_step)


def rank_rows(order: np.ndarray, *, step: int, global_batch: int, rank: int, world: int) -> list[int]:
    """The rows of one rank in one step; at an epoch's end a rank may have fewer than others, or none.

    Global batch g is order[g·G : (g+1)·G] whatever the number of ranks; ranks take contiguous slices of it, as equal as
    they can be.

    Args:
        order: [n], see `epoch_order`.
        step: g, from 0.
        global_batch: G, rows of all ranks together.
        rank, world: this rank and the number of ranks.
    Returns:
        Row indices, at most ceil(G / world).
    """
    batch = order[step * global_batch : (step + 1) * global_batch]
    return [int(row) for row in batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]]


def wrapped_rows(order: np.ndarray, *, step: int, global_batch: int, rank: int, world: int) -> list[int]:
    """The rows of one rank in one step where every rank needs equally many: the last batch goes on from the beginning.

    Args:
        order: [n], see `epoch_order`.
        step: from 0.
        global_batch: rows of all ranks together, a multiple of `world`.
        rank, world: this rank and the number of ranks.
    Returns:
        global_batch / world row indices.
    """
    count = global_batch // world
    start = step * global_batch + rank * count
    return [int(order[(start + i) % len(order)]) for i in range(count)]

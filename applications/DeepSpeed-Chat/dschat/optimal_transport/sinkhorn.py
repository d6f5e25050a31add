"""Sinkhorn iterations in float64, batched over positions: the published floored form and the symmetric problem.

Float64 costs little here (the kernel is read once per product) and settles three things at once: exp(-cost / epsilon)
does not become subnormal at 87 epsilon, TF32 never applies, and dozens of rounds lose no digits.

Legend: N positions, S bins of a support, the tail included.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

FLOOR = 1e-16  # the published guard in both denominators and in the final logarithm

_TINY = 1e-300


class Scaling(NamedTuple):
    """Where the floored iteration stands after its last round; the plan is `row[:, :, None] * K * column[:, None]`.

    Attributes:
        row: [N, S] u, the scaling on the policy's side; the row potential is epsilon * log(row + FLOOR).
        row_floored: [N, S] bool, True where a floor, not the problem, decided the value.
        marginal_error: [N] total absolute deviation of the plan's column sums from the reference's masses.
        num_iterations: [N] int64 rounds until the position stopped.
    """

    row: Tensor
    row_floored: Tensor
    marginal_error: Tensor
    num_iterations: Tensor


def floored_sinkhorn(
    kernel: Tensor, policy: Tensor, reference: Tensor, start: Tensor, *, max_iter: int, tol: float
) -> Scaling:
    """Alternates u <- p / (K v + floor), v <- q / (K u + floor), u first (WPR, arXiv 2602.01685, Algorithm 1).

    With a truncated kernel the problem may be infeasible: then nothing converges and `max_iter` is a strength.

    Args:
        kernel: [N, S, S] symmetric, or [S, S] sparse where all positions share one.
        policy, reference: [N, S] masses p and q; 0 on bins that take no part.
        start: [N, S] first v: 1 on bins, 0 on what takes no part.
        max_iter: most rounds.
        tol: a position stops after the round in which no entry of u changed by more than this; 0 runs every round.
    """
    row, column = start, start
    num_iterations = torch.full_like(policy[:, 0], max_iter, dtype=torch.int64)
    stopped = torch.zeros_like(num_iterations, dtype=torch.bool)
    weighted, column_sums = policy, reference
    for iteration in range(max_iter):
        new_weighted = _times(kernel, column)
        new_row = policy / (new_weighted + FLOOR)
        reached = _times(kernel, new_row)
        new_column = reference / (reached + FLOOR)
        updated = (new_row, new_column, new_weighted, column * reached)
        if tol > 0:
            change = (new_row - row).abs_().amax(dim=1)
            held = (row, column, weighted, column_sums)
            new_row, new_column, new_weighted, reached_sums = (
                torch.where(stopped[:, None], old, new) for old, new in zip(held, updated, strict=True)
            )
            updated = (new_row, new_column, new_weighted, reached_sums)
            now = ~stopped & (change <= tol)
            num_iterations = torch.where(now, iteration + 1, num_iterations)
            stopped = stopped | now
        row, column, weighted, column_sums = updated
        if row.device.type == "cpu" and stopped.all():  # on an accelerator the question would cost a round trip
            break
    return Scaling(
        row=row,
        row_floored=(weighted <= FLOOR) | (row <= FLOOR),
        marginal_error=(column_sums - reference).abs().sum(dim=1),
        num_iterations=num_iterations,
    )


def symmetric_scaling(kernel: Tensor, masses: Tensor, *, rounds: int) -> Tensor:
    """log u of the transport from a distribution to itself: diag(u) K diag(u) has row and column sums `masses`.

    Averages each Sinkhorn step with the last iterate in the log domain (Feydy et al. 2019, arXiv 1810.08278, Sec. 3.1),
    which for a positive semidefinite kernel halves the error every round or better. Since K_ii = 1, every
    u_i lies between masses_i / sum(u) and sqrt(masses_i), so the linear domain is safe at every epsilon.

    Args:
        kernel: [N, S, S] symmetric with a unit diagonal.
        masses: [N, S, M], M distributions for each kernel; 0 on bins that take no part.
        rounds: number of averaged steps; the error that remains is about 2 ** -rounds.
    Returns:
        [N, S, M], -inf where the mass is 0.
    """
    scaling = masses.sqrt()
    for _ in range(rounds):
        reached = torch.bmm(kernel, scaling).clamp_(min=_TINY)  # 0 only where there is no mass to scale
        scaling = (scaling * masses / reached).sqrt_()
    return scaling.log_()


def _times(kernel: Tensor, vector: Tensor) -> Tensor:
    """[N, S] products of each position's symmetric kernel with its row of `vector` [N, S]."""
    if kernel.is_sparse:
        return torch.sparse.mm(kernel, vector.T.contiguous()).T.contiguous()  # strided operands are five times slower
    return torch.bmm(vector[:, None, :], kernel)[:, 0]

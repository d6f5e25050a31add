"""The two treatments of pairs that are not neighbours: truncated (published) and capped (well posed).

Legend: N positions of a chunk, S support tokens, S + 1 bins (the tail comes last).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dschat.optimal_transport.geometry import TokenGeometry
from dschat.optimal_transport.newton import CappedSolution, solve_capped
from dschat.optimal_transport.sinkhorn import FLOOR, floored_sinkhorn
from dschat.optimal_transport.support import Support

_SMALLEST_SCALING = torch.finfo(torch.float32).tiny  # the published clamp of `normalize`
_NEGLIGIBLE_EXPONENT = 104.0  # exp(-104) = 1e-45: times the largest v, 1e16, it vanishes beside the floor
_SHARED_BLOCK_ELEMENTS = 2**20  # entries of a shared kernel that are computed at once


class SolvedPositions(NamedTuple):
    """Results of a chunk of positions; the fields of the same names of `TokenPotentials`, [N] each.

    Attributes:
        potential: float32, in cost units.
        distance: float32, or None where it is not defined.
        marginal_error: float32.
        num_iterations: int64.
        floored: bool.
        kept_neighbors: float32.
    """

    potential: Tensor
    distance: Tensor | None
    marginal_error: Tensor
    num_iterations: Tensor
    floored: Tensor
    kept_neighbors: Tensor


def joined(chunks: Sequence[SolvedPositions]) -> SolvedPositions:
    """The results of chunks of positions, one after the other, [N] each."""
    distances = [chunk.distance for chunk in chunks if chunk.distance is not None]
    return SolvedPositions(
        potential=torch.cat([chunk.potential for chunk in chunks]),
        distance=torch.cat(distances) if distances else None,
        marginal_error=torch.cat([chunk.marginal_error for chunk in chunks]),
        num_iterations=torch.cat([chunk.num_iterations for chunk in chunks]),
        floored=torch.cat([chunk.floored for chunk in chunks]),
        kept_neighbors=torch.cat([chunk.kept_neighbors for chunk in chunks]),
    )


class SharedKernel(NamedTuple):
    """The truncated kernel of a support that all positions share.

    Attributes:
        kernel: [S + 1, S + 1] float64, sparse, the tail last.
        kept_neighbors: [] float32, mean number of other tokens that a token exchanges mass with.
    """

    kernel: Tensor
    kept_neighbors: Tensor


def solve_truncated(
    support: Support,
    geometry: TokenGeometry,
    *,
    epsilon: float,
    max_iter: int,
    tol: float,
    normalize: bool,
    shared: SharedKernel | None = None,
) -> SolvedPositions:
    """Far pairs exchange no mass and the tail only with itself: the published problem, with its floors.

    Args:
        support: N positions, with ids [N, S] of their own, or [1, S] where `shared` is given.
        epsilon, max_iter, tol, normalize: see `token_potentials`.
        shared: kernel of the shared support; None computes each position's own.
    """
    if shared is None:
        cost, kept = geometry.costs(support.ids)
        neighbors = _kept_neighbors(kept, support)
        kernel = F.pad(cost.mul_(-1 / epsilon).exp_().mul_(kept), (0, 1, 0, 1))
        kernel[:, -1, -1] = 1.0
    else:
        kernel, neighbors = shared.kernel, shared.kept_neighbors.expand(len(support.token_bin))
    scaling = floored_sinkhorn(
        kernel,
        support.policy.exp(),
        support.reference.exp(),
        support.is_bin.double(),
        max_iter=max_iter,
        tol=tol,
    )
    chosen = support.token_bin[:, None]
    if normalize:
        potential = _normalized_potential(scaling.row, support.is_bin, epsilon)
    else:
        potential = epsilon * (scaling.row + FLOOR).log()
    return SolvedPositions(
        potential=potential.gather(1, chosen)[:, 0].float(),
        distance=None,
        marginal_error=scaling.marginal_error.float(),
        num_iterations=scaling.num_iterations,
        floored=scaling.row_floored.gather(1, chosen)[:, 0],
        kept_neighbors=neighbors,
    )


def solve_capped_transport(
    support: Support, geometry: TokenGeometry, *, epsilon: float, max_iter: int, tol: float, debias: bool
) -> SolvedPositions:
    """Far pairs, and the tail to every token, cost `geometry.far_cost`; kept pairs cost at most that.

    A capped metric is again a metric (thresholded ground distance, Pele and Werman 2009) and every kernel entry is
    positive, so the problem has a solution and its potentials are unique up to a constant. The constant is chosen so
    that the mean of phi under the policy is the distance.

    Args:
        support: N positions, with ids [N, S] of their own or [1, S] shared.
        epsilon, max_iter, tol, debias: see `token_potentials`.
    """
    cost, kept = geometry.costs(support.ids.expand(len(support.token_bin), -1))
    neighbors = _kept_neighbors(kept, support)
    far_cost = geometry.far_cost
    cost = cost.clamp_(max=far_cost).masked_fill_(~kept, far_cost)
    cost = F.pad(cost, (0, 1, 0, 1), value=far_cost)
    cost[:, -1, -1] = 0.0
    solution = solve_capped(
        cost,
        support.policy,
        support.reference,
        epsilon=epsilon,
        far_cost=far_cost,
        max_iter=max_iter,
        tol=tol,
        with_self_potentials=debias,
    )
    potential, distance = _gauged(solution, support)
    return SolvedPositions(
        potential=potential.gather(1, support.token_bin[:, None])[:, 0].float(),
        distance=distance.float(),
        marginal_error=solution.marginal_error.float(),
        num_iterations=solution.num_iterations,
        floored=torch.zeros_like(support.token_bin, dtype=torch.bool),
        kept_neighbors=neighbors,
    )


def _gauged(solution: CappedSolution, support: Support) -> tuple[Tensor, Tensor]:
    """Potentials [N, S + 1] whose mean under the policy is the distance [N], and that distance."""
    policy, reference = support.policy.exp(), support.reference.exp()
    potential = solution.row + _mean(solution.column, reference)[:, None]
    if solution.self_row is None or solution.self_column is None:
        return potential, _mean(potential, policy)
    self_column = _mean(solution.self_column, reference)[:, None]  # half the cost of moving q to itself
    potential = torch.where(policy > 0, potential - solution.self_row - self_column, 0.0)
    return potential, _mean(potential, policy)


def _mean(potential: Tensor, masses: Tensor) -> Tensor:
    """[N] mean of [N, S] potentials under [N, S] masses; bins without mass may hold -inf."""
    return torch.where(masses > 0, masses * potential, 0.0).sum(dim=1)


def _normalized_potential(row: Tensor, is_bin: Tensor, epsilon: float) -> Tensor:
    """The published `normalize`: u over its largest entry, and the potential centred over the bins, [N, S + 1]."""
    largest = row.amax(dim=1, keepdim=True)
    relative = row / torch.where(largest > 0, largest, 1.0)
    potential = epsilon * relative.clamp(min=_SMALLEST_SCALING).log()
    mean = torch.where(is_bin, potential, 0.0).sum(dim=1, keepdim=True) / is_bin.sum(dim=1, keepdim=True)
    return potential - mean


def _kept_neighbors(kept: Tensor, support: Support) -> Tensor:
    """[N] float32 mean over the support tokens of how many other support tokens they exchange mass with."""
    tokens = support.is_bin[:, :-1].float()
    reached = torch.bmm(tokens[:, None, :], kept.float())[:, 0]
    return (reached * tokens).sum(dim=1) / tokens.sum(dim=1) - 1.0


def shared_kernel(ids: Tensor, geometry: TokenGeometry, *, epsilon: float) -> SharedKernel:
    """The truncated kernel on one support, block by block of its rows; entries too small to matter are left out.

    Args:
        ids: [S] int64 token ids.
        epsilon: entropic temperature in cost units.
    """
    count = len(ids)
    rows_per_block = max(1, _SHARED_BLOCK_ELEMENTS // count)
    indices, values, pairs = [], [], ids.new_zeros(())
    for start in range(0, count, rows_per_block):
        cost, kept = geometry.costs_between(ids[start : start + rows_per_block], ids)
        pairs += kept.sum()
        rows, columns = (kept & (cost < _NEGLIGIBLE_EXPONENT * epsilon)).nonzero(as_tuple=True)
        indices.append(torch.stack([rows + start, columns]))
        values.append(torch.exp(cost[rows, columns] / -epsilon))
    indices.append(torch.full((2, 1), count, device=ids.device))
    values.append(torch.ones(1, dtype=torch.float64, device=ids.device))
    size = (count + 1, count + 1)
    kernel = torch.sparse_coo_tensor(
        torch.cat(indices, dim=1), torch.cat(values), size, is_coalesced=True, check_invariants=False
    )
    return SharedKernel(kernel, (pairs / count - 1).float())

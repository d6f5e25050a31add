"""The capped solver: convergence in few rounds, honest errors, the symmetric problem, extreme temperatures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dschat.optimal_transport import TokenGeometry
from dschat.optimal_transport.newton import CappedSolution, solve_capped
from dschat.optimal_transport.sinkhorn import symmetric_scaling
from tests.optimal_transport.problems import random_problem
from tests.oracles import dense_transport


def capped_problem(*, clusters: int, noise: float, size: int = 61, positions: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Capped costs [N, S, S] of one vocabulary and log-masses of two policies on it [N, S], float64; far cost 1.4."""
    problem = random_problem(
        seed=1, positions=positions, vocab_size=size, clusters=clusters, sharpness=3.0, noise=noise
    )
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=7)
    cost, kept = geometry.costs(torch.arange(size).expand(positions, -1))
    cost = cost.clamp(max=1.4).masked_fill(~kept, 1.4)
    cost.diagonal(dim1=1, dim2=2).zero_()
    return cost, *(logits.double().log_softmax(-1) for logits in problem[:2])


def solve(
    problem: tuple[Tensor, Tensor, Tensor], *, epsilon: float, max_iter: int, **settings: float
) -> CappedSolution:
    return solve_capped(*problem, epsilon=epsilon, far_cost=1.4, max_iter=max_iter, **{"tol": 0.0, **settings})


@pytest.mark.parametrize("clusters", [0, 11])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
@pytest.mark.parametrize(("epsilon", "rounds"), [(0.1, 12), (0.2, 9), (0.5, 6)])
def test_few_rounds_suffice_where_plain_sinkhorn_needs_hundreds(
    clusters: int, noise: float, epsilon: float, rounds: int
) -> None:
    problem = capped_problem(clusters=clusters, noise=noise)
    solution = solve(problem, epsilon=epsilon, max_iter=rounds)
    assert solution.marginal_error.max() < 1e-3


@pytest.mark.parametrize("clusters", [0, 11])
@pytest.mark.parametrize("noise", [0.3, 3.0])
@pytest.mark.parametrize("epsilon", [0.02, 0.07, 0.3])
def test_converged_potentials_match_plain_sinkhorn(clusters: int, noise: float, epsilon: float) -> None:
    cost, log_p, log_q = capped_problem(clusters=clusters, noise=noise, size=23, positions=3)
    solution = solve((cost, log_p, log_q), epsilon=epsilon, max_iter=60)
    assert solution.marginal_error.max() < 1e-9
    for n in range(3):
        p, q = log_p[n].exp().numpy(), log_q[n].exp().numpy()
        phi, psi, _ = dense_transport.converged_sinkhorn(p, q, cost[n].numpy(), epsilon=epsilon, tol=1e-12)
        shift = (solution.column[n] * log_q[n].exp()).sum()
        torch.testing.assert_close(solution.row[n] + shift, torch.from_numpy(phi), atol=1e-5, rtol=0)
        torch.testing.assert_close(solution.column[n] - shift, torch.from_numpy(psi), atol=1e-5, rtol=0)


@pytest.mark.parametrize("max_iter", [1, 2, 5])
@pytest.mark.parametrize("epsilon", [0.01, 0.1])
def test_reported_error_is_that_of_the_returned_plan(max_iter: int, epsilon: float) -> None:
    cost, log_p, log_q = capped_problem(clusters=11, noise=1.0)
    solution = solve((cost, log_p, log_q), epsilon=epsilon, max_iter=max_iter)
    plan = torch.exp((solution.row[:, :, None] + solution.column[:, None, :] - cost) / epsilon)
    torch.testing.assert_close(plan.sum(2), log_p.exp(), atol=1e-12, rtol=1e-9)
    torch.testing.assert_close((plan.sum(1) - log_q.exp()).abs().sum(1), solution.marginal_error, atol=1e-12, rtol=1e-9)
    assert solution.marginal_error.max() > 1e-3
    assert (solution.num_iterations <= max_iter).all()


def test_more_rounds_bring_a_smaller_error_even_at_tiny_epsilon() -> None:
    problem = capped_problem(clusters=11, noise=1.0)
    errors = [solve(problem, epsilon=0.01, max_iter=rounds).marginal_error.max() for rounds in (2, 8, 40)]
    assert errors[0] > 2 * errors[1] > 4 * errors[2]


def test_positions_stop_by_their_own_tolerance() -> None:
    problem = capped_problem(clusters=11, noise=1.0, positions=9)
    loose = solve(problem, epsilon=0.2, max_iter=50, tol=1e-2)
    tight = solve(problem, epsilon=0.2, max_iter=50, tol=1e-8)
    assert (loose.marginal_error <= 1e-2).all()
    assert (tight.marginal_error <= 1e-8).all()
    assert (tight.num_iterations > loose.num_iterations).all()
    alone = solve(tuple(tensor[4:5] for tensor in problem), epsilon=0.2, max_iter=50, tol=1e-2)
    torch.testing.assert_close(alone.row[0], loose.row[4], atol=1e-12, rtol=0)
    assert alone.num_iterations[0] == loose.num_iterations[4]


def test_bins_without_mass_change_nothing() -> None:
    cost, log_p, log_q = capped_problem(clusters=11, noise=1.0)
    wide = torch.nn.functional.pad(cost, (0, 3, 0, 3), value=1.4)
    empty = [torch.nn.functional.pad(log_mass, (0, 3), value=-torch.inf) for log_mass in (log_p, log_q)]
    expected = solve((cost, log_p, log_q), epsilon=0.1, max_iter=40, with_self_potentials=True)
    found = solve((wide, *empty), epsilon=0.1, max_iter=40, with_self_potentials=True)
    for name in ("row", "column", "self_row", "self_column"):
        torch.testing.assert_close(getattr(found, name)[:, :61], getattr(expected, name), atol=1e-7, rtol=0)
        assert (getattr(found, name)[:, 61:] == -torch.inf).all()


@pytest.mark.parametrize("epsilon", [1e-4, 0.01, 0.1, 1.0, 100.0])
def test_symmetric_scaling_reproduces_its_marginal_at_any_temperature(epsilon: float) -> None:
    cost, log_p, log_q = capped_problem(clusters=11, noise=1.0)
    kernel = torch.exp(-cost / epsilon)
    masses = torch.stack([log_p.exp(), log_q.exp()], dim=2)
    u = symmetric_scaling(kernel, masses, rounds=26).exp()
    torch.testing.assert_close(u * torch.bmm(kernel, u), masses, atol=1e-7, rtol=1e-6)

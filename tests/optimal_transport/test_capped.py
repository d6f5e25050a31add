"""Capped transport and its debiased form against converged float64 solves, POT and full-vocabulary transport."""

from __future__ import annotations

import numpy as np
import ot
import pytest
import torch

from dschat.optimal_transport import TokenGeometry, token_potentials
from tests.optimal_transport.problems import Problem, random_problem
from tests.oracles import dense_transport, published_scheme


def dense_costs(problem: Problem, geometry: TokenGeometry, num_neighbors: int) -> np.ndarray:
    """Capped [V, V] costs from an explicit list of kept pairs."""
    costs = published_scheme.pairwise_costs(problem.embeddings.numpy(), geometry.metric)
    return dense_transport.capped_costs(costs, published_scheme.kept_pairs(costs, num_neighbors), geometry.far_cost)


def policies(problem: Problem, position: int) -> tuple[np.ndarray, np.ndarray]:
    return tuple(published_scheme.softmax(logits[position].numpy()) for logits in problem[:2])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("ratio", [0.03, 0.1, 0.4])
def test_untruncated_capped_matches_dense_solve(metric: str, ratio: float) -> None:
    problem = random_problem(seed=1, positions=5, vocab_size=41, clusters=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=7, metric=metric)
    epsilon = ratio * geometry.far_cost
    result = token_potentials(*problem[:3], geometry, top_k=41, epsilon=epsilon, max_iter=40, transport="capped")
    costs = dense_costs(problem, geometry, 7)
    for n in range(5):
        phi, _, value = dense_transport.converged_sinkhorn(*policies(problem, n), costs, epsilon=epsilon, tol=1e-8)
        assert result.potential[n].item() == pytest.approx(phi[problem.tokens[n]], rel=1e-3, abs=1e-5)
        assert result.distance[n].item() == pytest.approx(value, rel=1e-3, abs=1e-5)
    assert result.marginal_error.max() < 1e-5


def test_untruncated_capped_matches_pot() -> None:
    problem = random_problem(seed=2, positions=3, vocab_size=37, clusters=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=36, far_cost=100.0)
    costs = published_scheme.pairwise_costs(problem.embeddings.numpy())
    epsilon = 0.1 * geometry.nearest_distance + 0.05
    result = token_potentials(*problem[:3], geometry, top_k=50, epsilon=epsilon, max_iter=40, transport="capped")
    for n in range(3):
        p, q = policies(problem, n)
        plan, log = ot.sinkhorn(
            p, q, costs, reg=epsilon, method="sinkhorn_log", numItermax=20_000, stopThr=1e-11, log=True
        )
        value = (plan * costs).sum() + epsilon * (plan * np.log(plan)).sum()
        phi = epsilon * log["log_u"] + q @ (epsilon * log["log_v"])
        assert result.distance[n].item() == pytest.approx(value, rel=1e-3)
        assert result.potential[n].item() == pytest.approx(phi[problem.tokens[n]], rel=1e-3, abs=1e-5)


def test_mean_potential_under_the_policy_is_the_distance() -> None:
    vocab_size = 29
    one = random_problem(seed=3, positions=1, vocab_size=vocab_size, clusters=7)
    problem = Problem(  # the same position once for every token it could have sampled
        one.policy_logits.expand(vocab_size, -1),
        one.reference_logits.expand(vocab_size, -1),
        torch.arange(vocab_size),
        one.embeddings,
    )
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    for debias in (False, True):
        result = token_potentials(
            *problem[:3], geometry, top_k=vocab_size, epsilon=0.1, max_iter=30, transport="capped", debias=debias
        )
        p = one.policy_logits[0].double().softmax(-1)
        assert (p @ result.potential.double()).item() == pytest.approx(result.distance[0].item(), abs=1e-6)
        assert result.potential.std() > 0.01


def test_potential_is_the_gradient_of_the_distance() -> None:
    problem = random_problem(seed=4, positions=1, vocab_size=23, clusters=7)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    costs = dense_costs(problem, geometry, 5)
    p, q = policies(problem, 0)
    phi, _, _ = dense_transport.converged_sinkhorn(p, q, costs, epsilon=0.2)
    direction = np.zeros(23)
    direction[[2, 5]] = 1e-5, -1e-5
    values = [dense_transport.converged_sinkhorn(p + sign * direction, q, costs, epsilon=0.2)[2] for sign in (1, -1)]
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(phi[2] - phi[5], rel=1e-4)
    tokens = torch.tensor([2, 5])
    result = token_potentials(
        problem.policy_logits.expand(2, -1),
        problem.reference_logits.expand(2, -1),
        tokens,
        geometry,
        top_k=23,
        epsilon=0.2,
        max_iter=30,
        transport="capped",
    )
    difference = result.potential[0] - result.potential[1]
    assert difference.item() == pytest.approx(phi[2] - phi[5], abs=1e-5)


@pytest.mark.parametrize("ratio", [0.1, 0.3])
def test_debiased_matches_dense_sinkhorn_divergence(ratio: float) -> None:
    problem = random_problem(seed=5, positions=5, vocab_size=37, clusters=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=7)
    epsilon = ratio * geometry.far_cost
    result = token_potentials(
        *problem[:3], geometry, top_k=37, epsilon=epsilon, max_iter=40, transport="capped", debias=True
    )
    costs = dense_costs(problem, geometry, 7)
    for n in range(5):
        phi, value = dense_transport.sinkhorn_divergence(*policies(problem, n), costs, epsilon=epsilon)
        assert result.potential[n].item() == pytest.approx(phi[problem.tokens[n]], rel=1e-3, abs=1e-5)
        assert result.distance[n].item() == pytest.approx(value, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize("max_iter", [1, 10, 60])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("support", ["position", "batch"])
def test_debiased_is_zero_at_equal_policies(max_iter: int, epsilon: float, support: str) -> None:
    problem = random_problem(seed=6, positions=9, clusters=13, uniform_tokens=True)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=9)
    result = token_potentials(
        problem.reference_logits,
        problem.reference_logits,
        problem.tokens,
        geometry,
        top_k=9,
        epsilon=epsilon,
        max_iter=max_iter,
        transport="capped",
        debias=True,
        support=support,
    )
    assert result.potential.abs().max() < 1e-6
    assert result.distance.abs().max() < 1e-6


@pytest.mark.parametrize("clusters", [0, 13])
@pytest.mark.parametrize("noise", [0.01, 0.3, 3.0])
def test_debiased_distance_is_not_negative(clusters: int, noise: float) -> None:
    problem = random_problem(seed=7, positions=33, clusters=clusters, noise=noise)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=9)
    result = token_potentials(
        *problem[:3], geometry, top_k=15, epsilon=0.1, max_iter=40, transport="capped", debias=True
    )
    assert result.distance.min() > -1e-7
    assert result.distance.max() > 1e-6


def test_agrees_with_full_vocabulary_transport_on_clustered_embeddings() -> None:
    problem = random_problem(seed=8, positions=12, vocab_size=300, width=16, clusters=40, sharpness=4.0)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=30)
    epsilon = 0.2 * geometry.nearest_distance
    result = token_potentials(*problem[:3], geometry, top_k=64, epsilon=epsilon, max_iter=60, transport="capped")
    costs = dense_costs(problem, geometry, 30)
    expected = []
    for n in range(12):
        phi, _, _ = dense_transport.converged_sinkhorn(*policies(problem, n), costs, epsilon=epsilon, tol=1e-4)
        expected.append(phi[problem.tokens[n]])
    found = result.potential.numpy()
    assert np.corrcoef(found, expected)[0, 1] >= 0.999


@pytest.mark.parametrize("epsilon", [1e-3, 1e-4])
def test_tiny_epsilon_stays_finite_and_reports_its_error(epsilon: float) -> None:
    problem = random_problem(seed=9, positions=9, clusters=13, noise=3.0, uniform_tokens=True)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=9)
    result = token_potentials(*problem[:3], geometry, top_k=11, epsilon=epsilon, max_iter=5, transport="capped")
    assert result.potential.isfinite().all()
    assert result.distance.isfinite().all()
    assert result.marginal_error.max() > 1e-3  # honest: five rounds are not enough here


def test_extreme_logits_stay_finite() -> None:
    problem = random_problem(seed=10, positions=9, clusters=13, sharpness=300.0, noise=300.0, uniform_tokens=True)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=9)
    for debias in (False, True):
        result = token_potentials(
            *problem[:3], geometry, top_k=11, epsilon=0.1, max_iter=20, transport="capped", debias=debias
        )
        assert result.potential.isfinite().all()
        assert result.distance.isfinite().all()


def test_moving_mass_to_a_close_token_costs_less() -> None:
    cat, kitten, dog, table = range(4)
    embeddings = torch.tensor([[0.0, 0.0], [0.2, 0.1], [1.0, 0.0], [4.0, 3.0]])
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=3, far_cost=10.0)
    reference = torch.tensor([0.94, 0.02, 0.02, 0.02]).log().expand(3, -1)
    moved = torch.tensor([[0.02, 0.94, 0.02, 0.02], [0.02, 0.02, 0.94, 0.02], [0.02, 0.02, 0.02, 0.94]]).log()
    result = token_potentials(
        moved,
        reference,
        torch.tensor([kitten, dog, table]),
        geometry,
        top_k=4,
        epsilon=0.05,
        max_iter=50,
        transport="capped",
        debias=True,
    )
    near, middle, far = result.distance.tolist()
    assert 0 < near < middle < far
    assert result.potential[0] < result.potential[1] < result.potential[2]
    assert cat == 0

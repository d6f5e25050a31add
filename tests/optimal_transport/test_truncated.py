"""Truncated transport against the closed form of an isolated token and a literal float64 reading of the paper."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dschat.optimal_transport import TokenGeometry, token_potentials
from tests.optimal_transport.problems import Problem, random_problem
from tests.oracles import published_scheme


def oracle(problem: Problem, **settings: object) -> np.ndarray:
    return published_scheme.potentials(*(tensor.numpy() for tensor in problem), **settings)


def package(problem: Problem, *, num_neighbors: int, metric: str = "l2", **settings: object) -> np.ndarray:
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=num_neighbors, metric=metric)
    return token_potentials(*problem[:3], geometry, **settings).potential.numpy()


@pytest.mark.parametrize("max_iter", [1, 2, 3, 10])
def test_potential_of_isolated_token_matches_closed_form(max_iter: int) -> None:
    problem = random_problem(scale=100.0, noise=0.3)  # distances of thousands of epsilon: every token is isolated
    epsilon = 0.01
    found = package(problem, num_neighbors=5, top_k=83, epsilon=epsilon, max_iter=max_iter)
    log_policy = problem.policy_logits.double().log_softmax(-1).gather(1, problem.tokens[:, None])[:, 0]
    log_reference = problem.reference_logits.double().log_softmax(-1).gather(1, problem.tokens[:, None])[:, 0]
    expected = published_scheme.isolated_token_potential(
        log_policy, log_reference, epsilon=epsilon, max_iter=max_iter
    ).numpy()
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize(("epsilon", "max_iter"), [(0.3, 10), (0.05, 1), (0.05, 7), (0.01, 10)])
def test_matches_published_scheme_position_by_position(metric: str, epsilon: float, max_iter: int) -> None:
    problem = random_problem(seed=3, positions=9, clusters=13)
    settings = {"num_neighbors": 6, "top_k": 10, "epsilon": epsilon, "max_iter": max_iter, "metric": metric}
    np.testing.assert_allclose(package(problem, **settings), oracle(problem, **settings), atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.3, 0.02])
def test_matches_published_scheme_for_tokens_outside_both_top_k_sets(epsilon: float) -> None:
    problem = random_problem(seed=4, positions=31, clusters=13, uniform_tokens=True)
    ranks = problem.policy_logits.argsort(descending=True).argsort().gather(1, problem.tokens[:, None])
    assert (ranks > 5).float().mean() > 0.5  # the case is really there
    settings = {"num_neighbors": 6, "top_k": 5, "epsilon": epsilon, "max_iter": 10}
    np.testing.assert_allclose(package(problem, **settings), oracle(problem, **settings), atol=1e-6)


def test_matches_published_scheme_with_duplicated_embeddings() -> None:
    problem = random_problem(seed=5, positions=13)
    embeddings = problem.embeddings.clone()
    embeddings[20:40] = embeddings[0:20]
    embeddings[60:75] = embeddings[60]  # more copies than neighbours
    problem = problem._replace(embeddings=embeddings)
    settings = {"num_neighbors": 4, "top_k": 20, "epsilon": 0.05, "max_iter": 10}
    np.testing.assert_allclose(package(problem, **settings), oracle(problem, **settings), atol=1e-6)


def test_matches_published_scheme_where_the_kernel_underflows() -> None:
    problem = random_problem(seed=6, positions=13, clusters=13, spread=0.2)
    settings = {"num_neighbors": 9, "top_k": 25, "epsilon": 0.0004, "max_iter": 10}
    kernel = np.exp(-published_scheme.pairwise_costs(problem.embeddings.numpy()) / 0.0004)
    off_diagonal = kernel[~np.eye(len(kernel), dtype=bool)]
    assert (off_diagonal < 1e-38).mean() > 0.9
    np.testing.assert_allclose(package(problem, **settings), oracle(problem, **settings), atol=1e-6)


@pytest.mark.parametrize("noise", [1.0, 4.0])
def test_matches_published_scheme_after_forty_rounds_where_the_floors_bind(noise: float) -> None:
    problem = random_problem(seed=7, positions=19, clusters=13, noise=noise)
    settings = {"num_neighbors": 6, "top_k": 10, "epsilon": 0.01, "max_iter": 40}
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=6)
    result = token_potentials(*problem[:3], geometry, top_k=10, epsilon=0.01, max_iter=40)
    assert result.floored.any()
    np.testing.assert_allclose(result.potential.numpy(), oracle(problem, **settings), atol=1e-6)


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("batch_support", [False, True])
def test_published_options_match_published_scheme(normalize: bool, batch_support: bool) -> None:
    problem = random_problem(seed=8, positions=11, clusters=13, uniform_tokens=True)
    settings = {"num_neighbors": 6, "top_k": 4, "epsilon": 0.1, "max_iter": 10, "normalize": normalize}
    found = package(problem, support="batch" if batch_support else "position", **settings)
    np.testing.assert_allclose(found, oracle(problem, batch_support=batch_support, **settings), atol=1e-6)


@pytest.mark.parametrize(("support", "tol"), [("position", 0.02), ("batch", 0.0005)])
def test_each_position_stops_by_its_own_tolerance(support: str, tol: float) -> None:
    problem = random_problem(seed=9, positions=17, vocab_size=331, clusters=13, noise=0.3)
    settings = {"num_neighbors": 150, "top_k": 20, "epsilon": 0.5, "max_iter": 60, "tol": tol}
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=150)
    result = token_potentials(*problem[:3], geometry, top_k=20, epsilon=0.5, max_iter=60, tol=tol, support=support)
    assert len(result.num_iterations.unique()) > 1
    assert result.num_iterations.max() <= 60
    expected = oracle(problem, batch_support=support == "batch", **settings)
    np.testing.assert_allclose(result.potential.numpy(), expected, atol=2e-5)


def test_marginal_error_is_that_of_the_returned_plan() -> None:
    problem = random_problem(seed=10, positions=1, vocab_size=23, clusters=5)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=30)
    result = token_potentials(*problem[:3], geometry, top_k=23, epsilon=0.3, max_iter=3)
    p, q = (logits[0].double().softmax(-1) for logits in problem[:2])
    kernel = torch.exp(-torch.cdist(*[problem.embeddings.double()] * 2) / 0.3)
    u = v = torch.ones_like(p)
    for _ in range(3):
        u, before = p / (kernel @ v), v
        v = q / (kernel @ u)
    plan = u[:, None] * kernel * before
    expected = (plan.sum(0) - q).abs().sum()
    assert expected > 1e-3
    assert result.marginal_error.item() == pytest.approx(expected.item(), rel=1e-4)


def test_truncated_transport_reports_no_distance() -> None:
    problem = random_problem()
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=5)
    assert token_potentials(*problem[:3], geometry, top_k=5).distance is None


def test_tail_masses_and_neighbour_counts_match_a_loop() -> None:
    problem = random_problem(seed=11, positions=5, clusters=9)
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=7)
    result = token_potentials(*problem[:3], geometry, top_k=6)
    kept = published_scheme.kept_pairs(published_scheme.pairwise_costs(problem.embeddings.numpy()), 7)
    for n in range(5):
        p, q = (published_scheme.softmax(logits[n].numpy()) for logits in problem[:2])
        support = published_scheme.position_support(p, q, int(problem.tokens[n]), 6)
        assert result.policy_tail_mass[n].item() == pytest.approx(1 - p[support].sum(), abs=1e-6)
        assert result.reference_tail_mass[n].item() == pytest.approx(1 - q[support].sum(), abs=1e-6)
        neighbors = kept[np.ix_(support, support)].sum(axis=1).mean() - 1
        assert result.kept_neighbors[n].item() == pytest.approx(neighbors, rel=1e-6)

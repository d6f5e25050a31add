"""The package against the benchmarks' plain float32 reading of the published scheme, run position by position."""

from __future__ import annotations

import pytest
import torch

import baseline
from dschat.optimal_transport import TokenGeometry, token_potentials
from tests.optimal_transport.problems import random_problem
from tests.oracles import published_scheme


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_loops_and_vectors_collect_the_same_pairs(metric: str) -> None:
    embeddings = random_problem(seed=1, vocab_size=57).embeddings
    costs, indices = baseline.nearest_pairs(embeddings, num_neighbors=4, metric=metric, block_size=20)
    fast_costs, fast_indices = baseline.nearest_pairs_vectorized(
        embeddings, num_neighbors=4, metric=metric, block_size=20
    )
    assert torch.equal(costs, fast_costs)
    assert torch.equal(indices, fast_indices)
    kernel = baseline.sparse_kernel(costs, indices, vocab_size=57, epsilon=0.3).to_dense()
    expected = published_scheme.truncated_kernel(
        published_scheme.pairwise_costs(embeddings.numpy(), metric), num_neighbors=4, epsilon=0.3
    )
    torch.testing.assert_close(kernel.double(), torch.from_numpy(expected), atol=2e-5, rtol=0)


@pytest.mark.parametrize("duplicated", [False, True])
@pytest.mark.parametrize(("epsilon", "max_iter"), [(0.3, 10), (0.05, 10), (0.01, 10), (0.01, 40), (0.0004, 10)])
def test_position_by_position_the_baseline_agrees(epsilon: float, max_iter: int, duplicated: bool) -> None:
    problem = random_problem(
        seed=2, positions=9, vocab_size=131, clusters=17, spread=0.2, noise=0.5, uniform_tokens=True
    )
    embeddings = problem.embeddings.clone()
    if duplicated:
        embeddings[[7, 70, 100]] = embeddings[[6, 69, 99]]
    settings = {"top_k": 10, "epsilon": epsilon, "max_iter": max_iter}
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=6)
    found = token_potentials(*problem[:3], geometry, **settings).potential
    pairs = published_scheme.pairwise_costs(embeddings.numpy())
    costs, indices = baseline.nearest_pairs(embeddings, num_neighbors=6)
    costs = torch.from_numpy(pairs[tuple(indices.numpy())]).float()  # its distances of duplicates are noise; ours not
    kernel = baseline.sparse_kernel(costs, indices, vocab_size=131, epsilon=epsilon)
    expected = torch.cat(
        [
            baseline.batch_potentials(*(tensor[n : n + 1] for tensor in problem[:3]), kernel, **settings)
            for n in range(len(found))
        ]
    )
    assert expected.abs().max() > epsilon
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)


def test_batch_support_agrees_with_the_baseline() -> None:
    problem = random_problem(seed=3, positions=23, vocab_size=331, clusters=37)
    settings = {"top_k": 5, "epsilon": 0.1, "max_iter": 10}
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=6)
    found = token_potentials(*problem[:3], geometry, support="batch", **settings).potential
    costs, indices = baseline.nearest_pairs_vectorized(problem.embeddings, num_neighbors=6)
    kernel = baseline.sparse_kernel(costs, indices, vocab_size=331, epsilon=0.1)
    expected = baseline.batch_potentials(*problem[:3], kernel, **settings)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)

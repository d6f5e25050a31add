"""TokenGeometry against brute force: radius, neighbour sets, distances of near-duplicates, the start-up report."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dschat.optimal_transport import TokenGeometry
from tests.optimal_transport.problems import random_problem
from tests.oracles import published_scheme


def brute_force_radius(costs: np.ndarray, num_neighbors: int) -> np.ndarray:
    """[V] cost to the k1-th nearest other token, the token itself excluded by its index."""
    others = costs.copy()
    np.fill_diagonal(others, np.inf)
    return np.sort(others, axis=1)[:, min(num_neighbors, len(costs) - 1) - 1]


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("num_neighbors", [1, 7, 300, 10_000])
@pytest.mark.parametrize("block_size", [1, 37, 1024])
def test_radius_is_cost_to_the_kth_nearest_other_token(metric: str, num_neighbors: int, block_size: int) -> None:
    embeddings = random_problem(seed=1, vocab_size=1001, width=13, clusters=90).embeddings
    geometry = TokenGeometry.from_embeddings(
        embeddings, num_neighbors=num_neighbors, metric=metric, block_size=block_size
    )
    costs = published_scheme.pairwise_costs(embeddings.numpy(), metric)
    np.testing.assert_allclose(geometry.radius.numpy(), brute_force_radius(costs, num_neighbors), atol=1e-6)
    assert geometry.nearest_distance == pytest.approx(np.median(brute_force_radius(costs, 1)), abs=1e-6)
    assert geometry.median_radius == pytest.approx(np.median(brute_force_radius(costs, num_neighbors)), abs=1e-6)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("num_neighbors", [1, 4, 30])
def test_radius_keeps_the_same_pairs_as_an_explicit_symmetrised_list(metric: str, num_neighbors: int) -> None:
    embeddings = random_problem(seed=2, vocab_size=211, width=5, clusters=30).embeddings
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=num_neighbors, metric=metric)
    ids = torch.arange(211)[None]
    cost, kept = geometry.costs(ids)
    expected_cost = published_scheme.pairwise_costs(embeddings.numpy(), metric)
    expected_kept = published_scheme.kept_pairs(expected_cost, num_neighbors)
    np.testing.assert_allclose(cost[0].numpy(), expected_cost, atol=2e-6)
    np.testing.assert_array_equal(kept[0].numpy(), expected_kept)
    assert 0 < expected_kept.sum() < 211 * 211


def test_every_pair_is_kept_when_all_tokens_are_neighbours() -> None:
    embeddings = random_problem(seed=3).embeddings
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=512)
    ids = torch.arange(len(embeddings))[None]
    assert geometry.costs(ids)[1].all()
    assert geometry.num_neighbors == len(embeddings) - 1


def test_duplicated_embeddings_count_as_neighbours_at_distance_zero() -> None:
    embeddings = random_problem(seed=4, vocab_size=101).embeddings.clone()
    embeddings[50:60] = embeddings[10] * 1.0
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=3)
    duplicates = [10, *range(50, 60)]
    assert geometry.radius[duplicates].abs().max() == 0
    assert geometry.radius[[1, 2, 3]].min() > 0.1
    ids = torch.tensor([duplicates])
    cost, kept = geometry.costs(ids)
    assert cost.max() < 1e-7
    assert kept.all()


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_near_duplicates_far_from_the_origin_keep_their_distances(offset: float) -> None:
    generator = torch.Generator().manual_seed(5)
    centers = torch.randn(60, 17, generator=generator) + offset
    embeddings = centers.repeat_interleave(9, dim=0) + 1e-3 * torch.randn(540, 17, generator=generator)
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=4)
    costs = published_scheme.pairwise_costs(embeddings.numpy())
    np.testing.assert_allclose(geometry.radius.numpy(), brute_force_radius(costs, 4), rtol=1e-4)
    ids = torch.arange(540)[None]
    np.testing.assert_allclose(geometry.costs(ids)[0][0].numpy(), costs, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_embeddings_are_measured_in_full_precision(dtype: torch.dtype) -> None:
    embeddings = random_problem(seed=6, vocab_size=307).embeddings.to(dtype)
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=5)
    costs = published_scheme.pairwise_costs(embeddings.float().numpy())
    assert geometry.embeddings.dtype == geometry.radius.dtype == torch.float32
    np.testing.assert_allclose(geometry.radius.numpy(), brute_force_radius(costs, 5), rtol=1e-5)


def test_reduced_matmul_precision_neither_changes_the_radius_nor_survives_a_change() -> None:
    embeddings = random_problem(seed=7, vocab_size=307, width=33).embeddings
    expected = TokenGeometry.from_embeddings(embeddings, num_neighbors=5).radius
    chosen = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = TokenGeometry.from_embeddings(embeddings, num_neighbors=5).radius
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(chosen)
    assert torch.equal(found, expected)


def test_zero_vectors_have_cosine_cost_one_to_every_other_token() -> None:
    embeddings = random_problem(seed=8, vocab_size=31).embeddings.clone()
    embeddings[3] = 0.0
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=2, metric="cosine")
    assert geometry.radius[3].item() == pytest.approx(1.0)
    assert geometry.radius.isfinite().all()


def test_far_cost_is_the_median_over_random_pairs_and_can_be_given() -> None:
    embeddings = random_problem(seed=9, vocab_size=997, width=9).embeddings
    costs = published_scheme.pairwise_costs(embeddings.numpy())
    measured = TokenGeometry.from_embeddings(embeddings, num_neighbors=5)
    assert measured.far_cost == pytest.approx(np.median(costs[np.triu_indices(997, 1)]), rel=0.02)
    assert TokenGeometry.from_embeddings(embeddings, num_neighbors=5).far_cost == measured.far_cost
    assert TokenGeometry.from_embeddings(embeddings, num_neighbors=5, far_cost=7.5).far_cost == 7.5


def test_float32_table_is_not_copied_and_carries_no_gradient() -> None:
    embeddings = random_problem(seed=10).embeddings.requires_grad_()
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=5)
    assert geometry.embeddings.data_ptr() == embeddings.data_ptr()
    assert not geometry.embeddings.requires_grad
    assert not geometry.radius.requires_grad
    assert geometry.to("cpu").far_cost == geometry.far_cost


def test_kernel_at_nearest_is_the_median_token_s_kernel_value() -> None:
    geometry = TokenGeometry.from_embeddings(torch.eye(5), num_neighbors=2)
    assert geometry.kernel_at_nearest(0.5) == pytest.approx(math.exp(-math.sqrt(2) / 0.5))


@pytest.mark.parametrize(
    ("epsilon", "transport", "words"),
    [
        (0.01, "truncated", ["WARNING", "inactive", "raise epsilon", "capped transport"]),
        (0.01, "capped", ["WARNING", "converges slowly", "more rounds"]),
        (0.3, "truncated", ["Semantic regime"]),
        (100.0, "truncated", ["Blurred regime"]),
    ],
)
def test_report_names_the_regime_and_what_changes_it(epsilon: float, transport: str, words: list[str]) -> None:
    geometry = TokenGeometry.from_embeddings(torch.eye(31), num_neighbors=4)
    report = geometry.describe(epsilon, transport=transport)
    for word in ["V = 31", "k1 = 4", "1.414", f"epsilon = {epsilon:.4g}", *words]:
        assert word in report
    assert ("WARNING" in report) == ("WARNING" in words)
    assert "--" not in report
    assert geometry.is_semantic_term_inactive(epsilon) == (epsilon == 0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_neighbors": 0}, "num_neighbors must be at least 1, got 0"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"metric": "L3"}, "metric must be 'l2' or 'cosine', got 'L3'"),
        ({"far_cost": 0.0}, "far_cost must be positive"),
        ({"far_cost": math.inf}, "far_cost must be positive"),
        ({"embeddings": torch.ones(1, 3)}, "at least 2 tokens"),
        ({"embeddings": torch.ones(3)}, "shape"),
        ({"embeddings": torch.tensor([[0.0], [1.0], [math.nan], [2.0]])}, "embedding of token 2 holds NaN or inf"),
    ],
)
def test_bad_settings_get_one_clear_sentence(change: dict[str, object], message: str) -> None:
    settings = {"embeddings": random_problem().embeddings, "num_neighbors": 3} | change
    with pytest.raises(ValueError, match=message):
        TokenGeometry.from_embeddings(settings.pop("embeddings"), **settings)


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_costs_between_two_sets_are_those_of_the_joint_set(metric: str) -> None:
    embeddings = random_problem(seed=11, vocab_size=61, clusters=9).embeddings
    geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=4, metric=metric)
    cost, kept = geometry.costs(torch.arange(61)[None])
    rows, columns = torch.tensor([3, 50, 17]), torch.tensor([17, 8, 3, 60, 44])
    part, part_kept = geometry.costs_between(rows, columns)
    torch.testing.assert_close(part, cost[0][rows][:, columns], atol=3e-7, rtol=0)
    assert torch.equal(part_kept, kept[0][rows][:, columns])


@pytest.mark.parametrize("metric", ["l2", "cosine"])
def test_ids_without_a_token_are_nobodys_neighbour(metric: str) -> None:
    embeddings = random_problem(seed=12, vocab_size=61, clusters=9).embeddings
    gaps = (0, 17, 18, 59)
    kept = [index for index in range(61) if index not in gaps]
    table = embeddings.clone()
    table[17] = table[16]
    table[18] = torch.nan
    geometry = TokenGeometry.from_embeddings(table, num_neighbors=4, metric=metric, gaps=gaps)
    alone = TokenGeometry.from_embeddings(embeddings[kept], num_neighbors=4, metric=metric)
    assert geometry.vocab_size == 61 and geometry.embeddings.isfinite().all()
    assert torch.equal(geometry.radius[kept], alone.radius)
    assert (geometry.far_cost, geometry.nearest_distance, geometry.median_radius) == (
        alone.far_cost, alone.nearest_distance, alone.median_radius,
    )  # fmt: skip
    assert f"V = {len(kept)} tokens" in geometry.describe(0.1)

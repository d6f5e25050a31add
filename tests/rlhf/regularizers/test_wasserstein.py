"""The Wasserstein regularizer hands its settings to the transport, and says what its numbers mean."""

from __future__ import annotations

import pytest
import torch

from dschat.config.regularizers import WassersteinConfig
from dschat.optimal_transport import TokenGeometry
from dschat.rlhf.regularizers.base import ResponsePositions
from dschat.rlhf.regularizers.wasserstein import WassersteinRegularizer

POSITIONS, VOCABULARY = 7, 29
EMBEDDINGS = torch.randn(VOCABULARY, 5, generator=torch.Generator().manual_seed(0))
GEOMETRY = TokenGeometry.from_embeddings(EMBEDDINGS, num_neighbors=4)
LOGITS = torch.randn(2, POSITIONS, VOCABULARY, generator=torch.Generator().manual_seed(1))


def positions() -> ResponsePositions:
    tokens = torch.arange(POSITIONS)
    policy, reference = (logits.log_softmax(-1)[tokens, tokens] for logits in LOGITS)
    return ResponsePositions(LOGITS[0], LOGITS[1], tokens, policy, reference)


def test_epsilon_may_be_in_nearest_distances() -> None:
    found = WassersteinRegularizer(WassersteinConfig(epsilon=0.5, epsilon_unit="nearest"), GEOMETRY)
    assert found.epsilon == 0.5 * GEOMETRY.nearest_distance
    in_cost = WassersteinRegularizer(WassersteinConfig(epsilon=found.epsilon, epsilon_unit="cost"), GEOMETRY)
    torch.testing.assert_close(found.penalty(positions()).values, in_cost.penalty(positions()).values)
    assert found.describe() == in_cost.describe()


@pytest.mark.parametrize("transport", ["truncated", "capped"])
def test_too_few_rounds_are_told(transport: str) -> None:
    shares = []
    for rounds in (1, 200):
        config = WassersteinConfig(
            transport=transport, epsilon=1.0, epsilon_unit="nearest", max_iter=rounds, tol=1e-3, top_k=8
        )
        metrics = WassersteinRegularizer(config, GEOMETRY).penalty(positions()).metrics
        assert all(values.shape == (POSITIONS,) for values in metrics.values())
        shares.append(metrics["unconverged_share"].mean().item())
    assert shares[0] == 1.0
    if transport == "capped":
        assert shares[1] == 0.0


def test_the_distance_is_known_where_the_problem_has_a_solution() -> None:
    settings = {"epsilon": 1.0, "epsilon_unit": "nearest", "max_iter": 50, "top_k": 8}
    capped = WassersteinRegularizer(WassersteinConfig(transport="capped", debias=True, tol=1e-3, **settings), GEOMETRY)
    assert (capped.penalty(positions()).metrics["wasserstein_distance"] >= -1e-4).all()
    truncated = WassersteinRegularizer(WassersteinConfig(transport="truncated", **settings), GEOMETRY)
    assert "wasserstein_distance" not in truncated.penalty(positions()).metrics

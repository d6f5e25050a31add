"""Regularizers as the trainer uses them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.models.causal_lm import token_log_probs
from dschat.optimal_transport import TokenGeometry, token_potentials
from dschat.rlhf.regularizers import Regularizer, ResponsePositions, build_regularizer

POSITIONS, VOCABULARY, WIDTH = 23, 31, 5


def make_positions(seed: int, *, same: bool = False) -> ResponsePositions:
    generator = torch.Generator().manual_seed(seed)
    policy = 2 * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    reference = policy.clone() if same else 2 * torch.randn(POSITIONS, VOCABULARY, generator=generator)
    tokens = torch.multinomial(policy.softmax(-1), 1, generator=generator).squeeze(-1)
    return ResponsePositions(
        policy, reference, tokens, token_log_probs(policy, tokens), token_log_probs(reference, tokens)
    )


def embeddings() -> Tensor:
    return torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(3))


def build(config: DivergenceConfig | WassersteinConfig) -> Regularizer:
    return build_regularizer(config, reference_embeddings=embeddings, seed=1)


def test_no_regularizer_penalizes_nothing() -> None:
    penalty = build(DivergenceConfig(f_div="none")).penalty(make_positions(0))
    assert torch.equal(penalty.values, torch.zeros(POSITIONS))


def test_kl_is_the_log_ratio_of_the_sampled_token() -> None:
    positions = make_positions(0)
    expected = (positions.policy_logits.log_softmax(-1) - positions.reference_logits.log_softmax(-1)).gather(
        -1, positions.tokens[:, None]
    )
    torch.testing.assert_close(
        build(DivergenceConfig()).penalty(positions).values, expected.squeeze(-1), atol=1e-5, rtol=1e-5
    )


def mean_of_estimator(config: DivergenceConfig, positions: ResponsePositions) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and standard deviation of the penalty over the policy's tokens, and KL(policy || reference), each [N]."""
    policy = positions.policy_logits.double().log_softmax(-1)
    reference = positions.reference_logits.double().log_softmax(-1)
    exact = (policy.exp() * (policy - reference)).sum(-1)
    mean, square = torch.zeros(2, POSITIONS, dtype=torch.float64)
    for token in range(VOCABULARY):
        one = ResponsePositions(
            positions.policy_logits, positions.reference_logits, torch.full((POSITIONS,), token),
            policy[:, token].float(), reference[:, token].float(),
        )  # fmt: skip
        value = build(config).penalty(one).values.double()
        mean += policy[:, token].exp() * value
        square += policy[:, token].exp() * value.square()
    return mean, (square - mean.square()).sqrt(), exact


@pytest.mark.parametrize("config", [{}, {"f_div_low_var": True}, {"kl_estimator": "k3"}], ids=str)
def test_unbiased_kl_estimators_have_the_divergence_as_their_mean(config: dict[str, object]) -> None:
    mean, _, exact = mean_of_estimator(DivergenceConfig(**config), make_positions(1))
    torch.testing.assert_close(mean, exact, atol=1e-4, rtol=1e-4)


def test_k2_is_half_the_squared_log_ratio_and_near_the_divergence_where_policies_are_near() -> None:
    positions = make_positions(1)
    near = ResponsePositions(
        positions.reference_logits + 0.05 * positions.policy_logits, positions.reference_logits, positions.tokens,
        positions.policy_log_probs, positions.reference_log_probs,
    )  # fmt: skip
    k1, k2 = (mean_of_estimator(DivergenceConfig(kl_estimator=k), near) for k in ("k1", "k2"))
    torch.testing.assert_close(k2[0], k2[2], atol=1e-3, rtol=0.2)
    assert (k2[1] < k1[1]).all()
    ratio = positions.policy_log_probs - positions.reference_log_probs
    assert torch.equal(build(DivergenceConfig(kl_estimator="k2")).penalty(positions).values, ratio**2 / 2)


def test_wasserstein_is_the_potential_of_the_sampled_token() -> None:
    positions = make_positions(4)
    config = WassersteinConfig(cost_dim=7, top_k=9, epsilon=0.3, max_iter=6, tol=0.0)
    penalty = build(config).penalty(positions)
    geometry = TokenGeometry.from_embeddings(embeddings(), num_neighbors=7)
    expected = token_potentials(
        positions.policy_logits, positions.reference_logits, positions.tokens, geometry, top_k=9, epsilon=0.3,
        max_iter=6,
    )  # fmt: skip
    assert torch.equal(penalty.values, expected.potential)
    assert all(values.shape == (POSITIONS,) for values in penalty.metrics.values())
    assert "wasserstein_distance" not in penalty.metrics


def test_capped_debiased_penalty_is_zero_at_the_reference_and_its_mean_is_the_distance() -> None:
    config = WassersteinConfig(transport="capped", debias=True, top_k=VOCABULARY, epsilon=0.2, max_iter=200)
    regularizer = build(config)
    same = regularizer.penalty(make_positions(5, same=True))
    torch.testing.assert_close(same.values, torch.zeros(POSITIONS), atol=1e-5, rtol=0)
    assert "wasserstein_distance" in same.metrics


@pytest.mark.parametrize(("max_iter", "share"), [(1, 1.0), (200, 0.0)])
@pytest.mark.parametrize("transport", ["capped", "truncated"])
def test_positions_that_ran_out_of_rounds_are_counted(transport: str, max_iter: int, share: float) -> None:
    config = WassersteinConfig(
        transport=transport, top_k=VOCABULARY, cost_dim=VOCABULARY, epsilon=1.0, max_iter=max_iter, tol=1e-4
    )
    metrics = build(config).penalty(make_positions(8)).metrics
    assert float(metrics["unconverged_share"].mean()) == share


def test_epsilon_in_nearest_distances_does_not_depend_on_the_scale_of_the_embeddings() -> None:
    config = WassersteinConfig(epsilon_unit="nearest", epsilon=0.5, cost_dim=7, top_k=9)
    positions = make_positions(6)
    one, ten = (
        build_regularizer(config, reference_embeddings=lambda s=s: s * embeddings(), seed=0) for s in (1.0, 10.0)
    )
    torch.testing.assert_close(ten.penalty(positions).values, 10 * one.penalty(positions).values, atol=1e-3, rtol=1e-3)


def test_perturbation_is_seeded_and_changes_the_geometry() -> None:
    positions = make_positions(7)
    config = WassersteinConfig(gaussian_perturb=0.5, epsilon=0.3, cost_dim=7, top_k=9)
    first, again = build(config).penalty(positions).values, build(config).penalty(positions).values
    plain = build(WassersteinConfig(epsilon=0.3, cost_dim=7, top_k=9)).penalty(positions).values
    assert torch.equal(first, again)
    assert not torch.allclose(first, plain)


@pytest.mark.parametrize("config", [DivergenceConfig(f_div=k) for k in ("none", "rkl", "js", "chi")])
def test_every_regularizer_describes_itself(config: DivergenceConfig) -> None:
    assert "regularizer" in build(config).describe()


def test_wasserstein_warns_when_the_semantic_term_is_inactive() -> None:
    cold = build(WassersteinConfig(epsilon=0.001, cost_dim=7)).describe()
    warm = build(WassersteinConfig(epsilon=1.0, cost_dim=7)).describe()
    assert cold.endswith("--epsilon_unit nearest --epsilon 0.2, or --transport capped.")
    assert "--" not in build(WassersteinConfig(epsilon=0.3, cost_dim=7)).describe()
    assert "inactive" in cold
    assert "inactive" not in warm

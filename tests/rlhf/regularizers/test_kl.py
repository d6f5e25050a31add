"""Estimates of the KL divergence from one sampled token, against their formulas."""

from __future__ import annotations

import pytest
import torch

from dschat.rlhf.regularizers.base import ResponsePositions
from dschat.rlhf.regularizers.kl import KLRegularizer
from dschat.rlhf.regularizers.none import NoRegularizer

LOG_RATIOS = torch.tensor([-2.0, -0.1, 0.0, 0.3, 4.0])
POSITIONS = ResponsePositions(
    policy_logits=torch.zeros(5, 3), reference_logits=torch.zeros(5, 3), tokens=torch.zeros(5, dtype=torch.int64),
    policy_log_probs=LOG_RATIOS - 1.0, reference_log_probs=torch.full((5,), -1.0),
)  # fmt: skip


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [("k1", LOG_RATIOS), ("k2", LOG_RATIOS**2 / 2), ("k3", LOG_RATIOS + (-LOG_RATIOS).exp() - 1)],
)
def test_each_estimator_is_its_formula(estimator: str, expected: torch.Tensor) -> None:
    penalty = KLRegularizer(estimator).penalty(POSITIONS)
    torch.testing.assert_close(penalty.values, expected, atol=1e-5, rtol=1e-5)
    assert estimator in KLRegularizer(estimator).describe()


def test_none_charges_nothing() -> None:
    assert torch.equal(NoRegularizer().penalty(POSITIONS).values, torch.zeros(5))
    assert NoRegularizer().describe().startswith("no regularizer")

"""The benchmark of padding: whole batches are one group, and metrics are compared without their times."""

from __future__ import annotations

import pytest
import torch

from dschat.rlhf import scoring
from dschat.rlhf.experience import Experience
from padding import all_padding, largest_difference


def test_within_the_body_rows_keep_all_their_padding() -> None:
    mask = torch.tensor([[0] * 6 + [1, 1, 1, 0], [1] * 10])
    real, trimmed = scoring.group_rows, Experience.trimmed
    with all_padding():
        (group,) = scoring.group_rows(mask, width=3)
        assert (group.rows.tolist(), group.columns, group.width) == ([0, 1], slice(0, 10), 3)
        assert Experience.trimmed is not trimmed
    assert scoring.group_rows is real and Experience.trimmed is trimmed


def test_differences_are_relative_and_times_do_not_count() -> None:
    left = {"reward": 10.0, "penalty": 0.02, "step_seconds": 1.0, "tokens_per_second": 5.0}
    right = {"reward": 11.0, "penalty": 0.01, "step_seconds": 9.0, "tokens_per_second": 1.0}
    assert largest_difference(left, right) == pytest.approx(1 / 11)
    assert largest_difference(left, left) == 0.0

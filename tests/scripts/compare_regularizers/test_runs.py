"""One run of the comparison: its settings, and the scale of its penalty."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from compare_regularizers.runs import VARIANTS, Run, Settings, penalty_scale, ppo_config
from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.optimal_transport import TokenGeometry


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_is_the_quickstarts_step_3_with_its_own_regularizer(name: str, tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), str(tmp_path / "out"), 5, 6, 16, fast=False)

    config = ppo_config(settings, Run(name, 0.1, 7), tmp_path / "out")

    regularizer = config.regularizer
    assert config.runtime.seed == 7 and config.batches(1).prompts == 6
    if isinstance(regularizer, DivergenceConfig):
        assert regularizer.f_div == {"none": "none", "kl": "rkl"}[name]
    else:
        assert isinstance(regularizer, WassersteinConfig)
        assert regularizer.debias == (name == "debiased")
        published = (regularizer.epsilon, regularizer.max_iter, regularizer.top_k) == (0.01, 10, 128)
        assert (regularizer.transport == "truncated") == published == (name == "truncated")


def test_penalty_scales_are_those_of_the_closed_form_and_of_the_far_cost() -> None:
    space = TokenGeometry.from_embeddings(torch.eye(5), num_neighbors=2, far_cost=0.7)

    found = {name: penalty_scale(name, space) for name in VARIANTS}

    assert found == pytest.approx({"none": 1, "kl": 1, "truncated": 0.09, "capped": 0.7, "debiased": 0.7})

"""Settings of regularizers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from dschat.config.regularizers import DivergenceConfig, RegularizerConfig
from tests.config.commands import refusal


def test_a_new_regularizer_says_only_what_is_its_own() -> None:
    @dataclass(frozen=True)
    class NewConfig(RegularizerConfig):
        """Nothing of its own."""

    assert NewConfig().default_clip is None
    NewConfig().check()


@pytest.mark.parametrize(("kind", "clip"), [("none", None), ("rkl", None), ("fkl", 2.5), ("js", 2.5), ("chi", 2.5)])
def test_divergences_with_exponential_tails_are_clipped(kind: Any, clip: float | None) -> None:
    assert DivergenceConfig(f_div=kind).default_clip == clip


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("wpr", "--debias", "--debias needs --transport capped"),
        ("wpr", "--far_cost 2", "--far_cost needs --transport capped"),
        ("wpr", "--normalize --transport capped", "--normalize belongs to --transport truncated"),
        ("ppo", "--f_div js --f_div_low_var", "--f_div_low_var works with --f_div rkl or fkl, got js"),
        ("ppo", "--kl_estimator k3 --f_div_low_var", "--f_div_low_var is --kl_estimator k3"),
    ],
)
def test_options_of_another_regularizer_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

"""Settings of regularizers, and of what is computed by the same names."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, get_args

import pytest

from dschat.config.bounds import value_types
from dschat.config.flag import Section
from dschat.config.ppo import MacroActionConfig
from dschat.config.regularizers import DivergenceConfig, RegularizerConfig, WassersteinConfig
from dschat.optimal_transport import TokenGeometry, token_potentials
from dschat.optimal_transport.potentials import Transport
from dschat.optimal_transport.support import SupportKind
from dschat.rlhf.macro_actions import TerminationCondition, ValueFunction
from tests.config.commands import refusal


@pytest.mark.parametrize(
    ("section", "field", "computed"),
    [
        (WassersteinConfig, "transport", Transport),
        (WassersteinConfig, "support", SupportKind),
        (MacroActionConfig, "termination_condition", TerminationCondition),
        (MacroActionConfig, "value_function", ValueFunction),
    ],
)
def test_the_choices_are_those_of_the_mathematics(section: type[Section], field: str, computed: Any) -> None:
    """Which must not read settings, as settings must not import torch."""
    assert get_args(value_types(section)[field]) == get_args(computed)


@pytest.mark.parametrize("function", [token_potentials, TokenGeometry.from_embeddings])
def test_the_mathematics_starts_from_the_defaults_of_the_flags(function: Any) -> None:
    flags = {"num_neighbors": "cost_dim"}
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.default is not parameter.empty and name != "metric":
            assert parameter.default == getattr(WassersteinConfig, flags.get(name, name)), name


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

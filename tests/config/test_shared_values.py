"""Choices and defaults that a flag shares with mathematics, which must not see settings, nor settings torch.

Those of the paper are in `dschat/published.py`, which both see.
"""

from __future__ import annotations

import inspect
from typing import Any, get_args

import pytest

from dschat.config.bounds import value_types
from dschat.config.flag import Section
from dschat.config.ppo import MacroActionConfig
from dschat.config.regularizers import WassersteinConfig
from dschat.optimal_transport import TokenGeometry, token_potentials
from dschat.optimal_transport.potentials import Transport
from dschat.optimal_transport.support import SupportKind
from dschat.rlhf.macro_actions import TerminationCondition, ValueFunction


@pytest.mark.parametrize(
    ("section", "field", "choices"),
    [
        (WassersteinConfig, "transport", Transport),
        (WassersteinConfig, "support", SupportKind),
        (MacroActionConfig, "termination_condition", TerminationCondition),
        (MacroActionConfig, "value_function", ValueFunction),
    ],
)
def test_a_flag_has_the_choices_of_what_it_chooses(section: type[Section], field: str, choices: Any) -> None:
    assert get_args(value_types(section)[field]) == get_args(choices)


@pytest.mark.parametrize(
    ("section", "function", "flags"),
    [
        (WassersteinConfig, token_potentials, {}),
        (WassersteinConfig, TokenGeometry.from_embeddings, {"num_neighbors": "cost_dim"}),
    ],
)
def test_a_function_starts_where_its_flag_does(section: type[Section], function: Any, flags: dict[str, str]) -> None:
    compared = 0
    for name, parameter in inspect.signature(function).parameters.items():
        flag = flags.get(name, name)
        if parameter.default is not parameter.empty and hasattr(section, flag):
            assert parameter.default == getattr(section, flag), name
            compared += 1
    assert compared

"""The check that a flag which was given has an effect beside the others."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from dschat.config.bounds import listed
from dschat.config.flag import flags_of
from dschat.errors import UserError


def check_needs(config: Any, given: Collection[str]) -> None:
    """Raise UserError for a flag that was given without the one it needs, even where its value is the default.

    Args:
        config: settings of a step, a dataclass of sections.
        given: names of the flags on the command line or in the YAML file.
    """
    sections = [getattr(config, field.name) for field in dataclasses.fields(config)]
    values = {name: getattr(section, name) for section in sections for name in flags_of(section)}
    for section in sections:
        for name, flag in flags_of(section).items():
            # a section that several steps share names the owners of all of them
            owners = [owner for owner in flag.needs if owner.split()[0] in values]
            if name in given and owners and not any(_is_on(owner, values) for owner in owners):
                shown = _shown(values[name])
                raise UserError(f"--{name} {shown} has no effect without {_named(owners)}; add that or drop --{name}")


def _is_on(owner: str, values: Mapping[str, Any]) -> bool:
    """Whether `enable_ema`, `f_div alpha` or `termination_condition fixed|parsing` holds."""
    name, _, choices = owner.partition(" ")
    return values[name] in choices.split("|") if choices else bool(values[name])


def _named(owners: list[str]) -> str:
    """The owners as a user would type them."""
    return listed(tuple(f"--{owner.replace('|', ' or ')}" for owner in owners))


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

"""The check of one section's values against the bounds and choices that its fields state."""

from __future__ import annotations

import math
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from dschat.config.flag import Flag, Section, flags_of
from dschat.errors import UserError


def check_bounds(section: Section) -> None:
    """Raise UserError for the first value out of its bounds, not finite, or not among its choices."""
    types = value_types(type(section))
    for name, flag in flags_of(section).items():
        value = getattr(section, name)
        for item in value if isinstance(value, list) else [value]:
            problem = None if item is None else _problem(item, flag, types[name])
            if problem:
                advice = f"; {flag.advice}" if flag.advice else ""
                raise UserError(f"--{name} {problem}, got {item}{advice}")


def value_types(section: type[Section]) -> dict[str, Any]:
    """The type of each field's value where it is given: `float` for `float | None`."""
    hints = get_type_hints(section)
    return {name: _without_none(hints[name]) for name in flags_of(section)}


def _without_none(kind: Any) -> Any:
    if get_origin(kind) not in (Union, UnionType):
        return kind
    (given,) = (part for part in get_args(kind) if part is not NoneType)
    return given


def _problem(value: Any, flag: Flag, kind: Any) -> str | None:
    """What is wrong with one value, None where nothing is."""
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        return None if value in choices else f"must be {listed(choices)}"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if not math.isfinite(value):
        return "must be finite"
    within = (
        (flag.at_least is None or value >= flag.at_least)
        and (flag.above is None or value > flag.above)
        and (flag.at_most is None or value <= flag.at_most)
        and (flag.below is None or value < flag.below)
    )
    return None if within else f"must {_demand(flag)}"


def _demand(flag: Flag) -> str:
    """The bounds in words."""
    if flag.at_least is not None and flag.at_most is not None:
        return f"be between {flag.at_least} and {flag.at_most}"
    if flag.above is not None and flag.below is not None:
        return f"lie between {flag.above} and {flag.below}"
    if flag.at_least == 0 and flag.below is None:
        return "not be negative"
    named = (("at least", flag.at_least), ("above", flag.above), ("at most", flag.at_most), ("below", flag.below))
    return "be " + " and ".join(f"{words} {bound}" for words, bound in named if bound is not None)


def listed(words: tuple[Any, ...]) -> str:
    """`a, b or c`."""
    *most, last = map(str, words)
    return f"{', '.join(most)} or {last}" if most else last

"""The one way to define a setting: a dataclass field that is a command-line flag, with its default, bound and help."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar, overload

Value = TypeVar("Value")

_KEY = "flag"


@dataclass(frozen=True)
class Flag:
    """What a field says about itself beside its name, type and default."""

    help: str
    """One or two sentences for --help."""
    at_least: float | None
    above: float | None
    at_most: float | None
    below: float | None
    advice: str
    """What to do instead, at the end of the message about a value out of bounds."""
    aliases: tuple[str, ...]
    """Further names, without dashes."""
    needs: tuple[str, ...]
    """Flags of which one must be on for this one to have an effect, see `flag`."""
    may_change: bool
    """Whether a run may be continued with another value."""


class Section:
    """Settings of one concern. A subclass is a frozen dataclass, each of its fields a `flag`."""

    group: ClassVar[str]
    """Heading of these flags in --help."""

    def check(self) -> None:
        """Raise UserError for flags of this section that contradict each other; their bounds hold already."""


@overload
def flag(*, help: str) -> Any: ...


@overload
def flag(
    default: Value,
    *,
    help: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    advice: str = "",
    aliases: tuple[str, ...] = (),
    needs: str | tuple[str, ...] = (),
    may_change: bool = False,
) -> Value: ...


def flag(
    default: Any = dataclasses.MISSING,
    *,
    help: str,
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    below: float | None = None,
    advice: str = "",
    aliases: tuple[str, ...] = (),
    needs: str | tuple[str, ...] = (),
    may_change: bool = False,
) -> Any:
    """A field of a section, such as `gamma: float = flag(1.0, at_least=0, at_most=1, help="Discount per token.")`.

    The field's type says what the command line takes: `Literal[...]` is a choice, `bool` a switch, `list[...]` takes
    several words, and `... | None` is left out or given. A number must be finite, and within the bounds where it is
    given; every item of a list likewise.

    Args:
        default: what holds where the flag is left out; the flag is required without one. A list is copied.
        help: the everyday meaning first, then what special values do.
        at_least, above, at_most, below: bounds of a number, the first and third inclusive.
        advice: ends the message about a value out of bounds, such as "3 is usual".
        aliases: further names, without dashes.
        needs: the flag without which this one has no effect, as on the command line but without dashes: "enable_ema"
            (on, above 0, or given), "f_div alpha", "termination_condition fixed|parsing". Of several, one is enough.
        may_change: True where a continued run may have another value because no number that is computed depends on it.
    """
    described = Flag(
        help,
        at_least,
        above,
        at_most,
        below,
        advice,
        aliases,
        (needs,) if isinstance(needs, str) else needs,
        may_change,
    )
    metadata = {_KEY: described}
    if isinstance(default, list):
        return dataclasses.field(default_factory=default.copy, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


def flags_of(section: Any) -> dict[str, Flag]:
    """What each field of a section, or of its class, says about itself, by name."""
    return {field.name: field.metadata[_KEY] for field in dataclasses.fields(section)}


def defaults_of(section: Any) -> dict[str, Any]:
    """What each field of a section, or of its class, holds where nothing is given; MISSING where something must be."""
    return {
        field.name: field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        for field in dataclasses.fields(section)
    }

"""Whether a program's output is the expected one. It runs where the tests are kept, never beside the program.

Outputs come from programs that a policy wrote, perhaps to be taken for right ones: anything in them may be malformed,
and nothing in them may raise here. Bytes are capped, parsed as text or JSON, and never unpickled or evaluated.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, DecimalException
from typing import Any, Literal

from dschat.code_execution.long_integers import dump_json, load_untrusted_json

Comparison = Literal["strict", "reference"]

MAX_OUTPUT_BYTES = 2**20
RELATIVE_TOLERANCE = Decimal("1e-6")
ABSOLUTE_TOLERANCE = Decimal("1e-9")
"""For expected numbers next to 0, of which no relative error is small."""
SHOWN_CHARACTERS = 40

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,6})?")
_INTEGER = re.compile(r"[+-]?[0-9]+")


class MalformedOutput(ValueError):
    """A program's output that cannot be read; the text says why."""


def text_difference(output: bytes, expected: str) -> str | None:
    """Compare what a program printed with what it should have printed.

    The same number of lines with the same tokens in the same order; blank lines and the amount of white space do not
    matter. Where an expected token is a decimal number the printed one may differ by 1e-6 of it (or by 1e-9); integers
    must be equal, however large, but may be printed as decimals (`2.0` for `2`).

    Args:
        output: standard output; more than 1 MiB is never right. Bytes that are no UTF-8 are replaced.
        expected: the text.
    Returns:
        None if they agree, else the first difference in one line.
    """
    if len(output) > MAX_OUTPUT_BYTES:
        return f"printed more than {MAX_OUTPUT_BYTES} bytes"
    printed, wanted = list(_lines(output.decode("utf-8", "replace"))), list(_lines(expected))
    for number, (ours, theirs) in enumerate(zip(printed, wanted, strict=False), start=1):
        if len(ours) != len(theirs):
            return f"line {number}: {len(ours)} items instead of {len(theirs)}"
        for mine, right in zip(ours, theirs, strict=True):
            if mine != right and not _same_number(mine, right):
                return f"line {number}: {shown(mine)} instead of {shown(right)}"
    if len(printed) != len(wanted):
        return f"{len(printed)} lines instead of {len(wanted)}"
    return None


def parse_result(output: bytes) -> Any:
    """The JSON value that a call returned.

    Args:
        output: JSON text; NaN and Infinity are read as Python writes them.
    Returns:
        The value; integers of very many digits come as Decimals.
    Raises:
        MalformedOutput: no JSON, too deep or too long.
    """
    if len(output) > MAX_OUTPUT_BYTES:
        raise MalformedOutput(f"the result has more than {MAX_OUTPUT_BYTES} bytes of JSON")
    try:
        return load_untrusted_json(output)
    except RecursionError:
        raise MalformedOutput("the result is nested too deeply") from None
    except ValueError as error:
        raise MalformedOutput(f"the result is not JSON: {shown(str(error))}") from None


def value_difference(value: Any, expected: Any, *, may_be_wrapped: bool = False) -> str | None:
    """Compare what a call returned with what it should have returned.

    Types matter: True is not 1, "1" is not 1, and NaN is right only where NaN is expected. Integers must be equal;
    where a float is expected the number may differ by 1e-6 of it (or by 1e-9). Tuples became lists on the way through
    JSON, and keys became text.

    Args:
        value: parsed JSON.
        expected: parsed JSON.
        may_be_wrapped: also accept `v` where `[v]` is expected, as the published data wraps the results of some
            problems.
    Returns:
        None if they agree, else both in one line.
    """
    try:
        if _same_value(value, expected):
            return None
        if may_be_wrapped and isinstance(expected, list) and len(expected) == 1 and _same_value(value, expected[0]):
            return None
    except RecursionError:
        return "the result is nested too deeply to compare"
    return f"{_cut(_as_json(value))} instead of {_cut(_as_json(expected))}"


def shown(text: str) -> str:
    """The beginning of a text in quotes, control characters and lone surrogates escaped."""
    cut = _cut(text)
    return ascii(cut) if any(not c.isprintable() for c in cut) else repr(cut)


def _lines(text: str) -> Iterator[list[str]]:
    """The tokens of each line that has any."""
    return (tokens for line in text.split("\n") if (tokens := line.split()))


def _same_number(printed: str, expected: str) -> bool:
    if not (_NUMBER.fullmatch(printed) and _NUMBER.fullmatch(expected)):
        return False
    if _INTEGER.fullmatch(expected):
        # other text for the same integer is another answer (007), unless it is a decimal
        return not _INTEGER.fullmatch(printed) and Decimal(printed) == Decimal(expected)
    return _close(Decimal(printed), Decimal(expected))


def _close(value: Decimal, expected: Decimal) -> bool:
    """Whether two finite numbers differ by no more than the tolerances."""
    try:
        return abs(value - expected) <= max(RELATIVE_TOLERANCE * abs(expected), ABSOLUTE_TOLERANCE)
    except DecimalException:
        return False


def _same_value(value: Any, expected: Any) -> bool:
    match expected:
        case bool() | None | str():
            return type(value) is type(expected) and value == expected
        case int() | float():
            return type(value) in (int, float, Decimal) and _same_json_number(value, expected)
        case list() | tuple():
            return (
                isinstance(value, list)
                and len(value) == len(expected)
                and all(_same_value(a, b) for a, b in zip(value, expected, strict=True))
            )
        case dict():
            return (
                isinstance(value, dict)
                and value.keys() == {str(key) for key in expected}
                and all(_same_value(value[str(key)], b) for key, b in expected.items())
            )
    return False


def _same_json_number(value: int | float | Decimal, expected: int | float) -> bool:
    if isinstance(expected, int) or not (Decimal(value).is_finite() and math.isfinite(expected)):
        return value == expected or (value != value and expected != expected)
    return _close(Decimal(value), Decimal(expected))


def _cut(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"


def _as_json(value: Any) -> str:
    try:
        return dump_json(value)
    except (RecursionError, TypeError, ValueError):
        return f"a {type(value).__name__} too large to show"


def published_text_matches(output: bytes, expected: str) -> bool:
    """The leniencies of the published comparison of printed text, for `--apps_compare reference`.

    Beyond `text_difference` it takes numbers that are off by 1e-5, lines in any order and tokens of a line in any
    order, both any number of times, and then numbers rounded to three decimals. A policy can learn to exploit that; it
    is here to compare verdicts with.

    Args:
        output: standard output.
        expected: the text.
    """
    if text_difference(output, expected) is None:
        return True
    if len(output) > MAX_OUTPUT_BYTES:
        return False
    printed, wanted = list(_lines(output.decode("utf-8", "replace"))), list(_lines(expected))
    if not printed or not wanted:
        return False
    return (
        _all_near(printed, wanted)
        or _line_sets(printed, _unchanged) == _line_sets(wanted, _unchanged)
        or _line_sets(printed, _rounded) == _line_sets(wanted, _rounded)
    )


def _all_near(printed: Sequence[Sequence[str]], wanted: Sequence[Sequence[str]]) -> bool:
    """Whether both are one number a line, and the numbers are near."""
    pairs = list(zip(printed, wanted, strict=False))
    return len(printed) == len(wanted) and all(
        len(ours) == len(theirs) == 1
        and _NUMBER.fullmatch(ours[0]) is not None
        and _NUMBER.fullmatch(theirs[0]) is not None
        and math.isclose(float(ours[0]), float(theirs[0]), rel_tol=1e-5, abs_tol=1e-8)
        for ours, theirs in pairs
    )


def _line_sets(lines: Sequence[Sequence[str]], form: Callable[[str], str]) -> set[frozenset[str]]:
    return {frozenset(form(token) for token in line) for line in lines}


def _unchanged(token: str) -> str:
    return token


def _rounded(token: str) -> str:
    return str(round(float(token), 3)) if _NUMBER.fullmatch(token) else token

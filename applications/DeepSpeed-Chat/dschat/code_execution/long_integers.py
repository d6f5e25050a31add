"""JSON with integers of any length. Python's own reads and writes them up to 4,300 digits only (CVE-2020-10735).

The tests of programming problems hold longer ones. Lifting the limit of the whole process instead would let a program's
output keep the grader busy: reading a million digits as an `int` takes 14 seconds, as a `Decimal` 3 milliseconds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from typing import Any

PYTHON_DIGITS = 640
"""What every setting of Python's limit lets through."""


def digits(number: int | Decimal) -> str:
    """An integer in decimal notation; `str` where that may refuse."""
    return str(Decimal(number))  # exact, and without an exponent, however long


def load_json(text: str | bytes) -> Any:
    """`json.loads` for text that we trust; ValueError where it is no JSON."""
    try:
        return json.loads(text)
    except ValueError:  # a long integer, or what is no JSON in this way either
        return json.loads(text, parse_int=lambda word: int(word) if len(word) <= PYTHON_DIGITS else int(Decimal(word)))


def load_untrusted_json(text: str | bytes) -> Any:
    """`json.loads` in which a long integer costs nothing: it comes as a Decimal, which equals the integer."""
    return json.loads(text, parse_int=lambda word: int(word) if len(word) <= PYTHON_DIGITS else Decimal(word))


def dump_json(value: Any, *, sort_keys: bool = False, default: Callable[[Any], Any] | None = None) -> str:
    """`json.dumps`, for what the functions above return too; TypeError or RecursionError where it is no JSON."""
    try:
        return json.dumps(value, sort_keys=sort_keys, default=default)
    except (TypeError, ValueError):  # a Decimal, a long integer, or what ends in the same error below
        return _dumped(value, sort_keys, default)


def _dumped(value: Any, sort_keys: bool, default: Callable[[Any], Any] | None) -> str:
    match value:
        case bool() | None | str() | float():
            return json.dumps(value)
        case int() | Decimal():
            return digits(value)
        case list() | tuple():
            return "[" + ", ".join(_dumped(item, sort_keys, default) for item in value) + "]"
        case dict():
            items = sorted(value.items()) if sort_keys else value.items()
            # what stands before the 0 in `{"key": 0}`
            words = (json.dumps({key: 0})[1:-2] + _dumped(item, sort_keys, default) for key, item in items)
            return "{" + ", ".join(words) + "}"
    if default is not None:
        return _dumped(default(value), sort_keys, default)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

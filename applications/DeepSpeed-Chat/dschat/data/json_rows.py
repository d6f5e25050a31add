"""A reader of JSON and JSON-lines files that can say which line is wrong."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, NoReturn

from dschat.data.compression import numbered_lines, plain_suffix
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_BLANKS = " \t\r\n"
"""JSON's white space; Python's `strip` knows more."""
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}


class BadRows:
    """Rows that cannot be read: left out with a warning and counted, up to a limit."""

    def __init__(self, limit: int = 0) -> None:
        self.limit = limit
        self.count = 0
        """Rows left out so far."""

    def leave_out(self, fault: UserError) -> None:
        """Count a row; UserError if it is one too many."""
        if self.count >= self.limit:
            raise UserError(f"{fault} (--skip_bad_rows {self.limit} is used up)") if self.limit else fault
        self.count += 1
        logger.warning("left out %s", fault)


def read_json_rows(path: Path, *, text_columns: Sequence[str] = (), bad: BadRows | None = None) -> list[dict[str, Any]]:
    """All objects of a file.

    Args:
        path: `.jsonl` with one object a line, or `.json`, which may also be one list of objects, either of them
            compressed (`.gz`, `.zst`). UTF-8; a byte order mark and blank lines are tolerated.
        text_columns: fields that must hold text in every row. A column that no row has is left to the caller, who
            knows the name of the dataset.
        bad: takes the rows that cannot be read; without it there may be none.
    Raises:
        UserError: `file:line: what; expected {"prompt": ...}`; or the file is damaged or cut off, which `bad` does not
            take, as nobody knows how many rows are lost.
    """
    bad = bad or BadRows()
    numbered = list(iter_json_rows(path, text_columns=text_columns, bad=bad))
    present = {name for _, row in numbered for name in row}
    rows = []
    for line, row in numbered:
        try:
            for name in text_columns:
                if name in present:
                    _check_text(path, line, row, name, text_columns)
        except UserError as fault:
            bad.leave_out(fault)
        else:
            rows.append(row)
    return rows


def iter_json_rows(
    path: Path, *, text_columns: Sequence[str] = (), bad: BadRows | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield (line number from 1, object), reading no further than asked; `text_columns` only shapes the messages."""
    bad = bad or BadRows()
    expected = _expected(text_columns)
    values: Iterator[tuple[int, Any]]
    lines = _without_mark(numbered_lines(path))
    first = next(((line, raw) for line, raw in lines if raw.strip()), None)
    if first is None:
        return
    rest = chain([first], lines)
    if plain_suffix(path) == ".json" and first[1].lstrip(_BLANKS.encode()).startswith(b"["):
        values = _list_items(path, first[0], b"".join(raw for _, raw in rest), expected)
    else:
        values = ((line, raw.removesuffix(b"\n")) for line, raw in rest if raw.strip())
    for line, value in values:
        try:
            row = _value_of_line(path, line, value, expected) if isinstance(value, bytes) else value
            if not isinstance(row, dict):
                _fault(path, line, f"{_kind(row)} instead of an object", expected)
            _check_unicode(path, line, row, expected)
        except UserError as fault:
            bad.leave_out(fault)
        else:
            yield line, row


def _without_mark(lines: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Lines without the file's byte order mark."""
    return ((line, raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw) for line, raw in lines)


def _value_of_line(path: Path, line: int, raw: bytes, expected: str) -> Any:
    """The JSON value of a line."""
    try:
        return json.loads(_decoded(path, line, raw, expected))
    except json.JSONDecodeError as error:
        extra = error.msg == "Extra data"
        what = "more than one JSON value on the line" if extra else f"not JSON ({error.msg}, column {error.colno})"
        _fault(path, line, what, expected)
    except (ValueError, RecursionError) as error:  # integers of thousands of digits, thousands of brackets
        if isinstance(error, UserError):
            raise
        _fault(path, line, f"not usable JSON ({error})", expected)


def _list_items(path: Path, start: int, content: bytes, expected: str) -> Iterator[tuple[int, Any]]:
    """The items of a file that is one list, which begins on line `start`, each with the line it begins on."""
    text = "\n" * (start - 1) + _decoded(path, start, content, expected)
    decoder = json.JSONDecoder()
    position = _skip_blanks(text, text.index("[") + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            _fault(path, error.lineno, f"not JSON ({error.msg}, column {error.colno})", expected)
        except (ValueError, RecursionError) as error:
            _fault(path, line, f"not usable JSON ({error})", expected)
        yield line, value
        position = _skip_blanks(text, position)
        if text[position : position + 1] == ",":
            position = _skip_blanks(text, position + 1)
            if text[position : position + 1] == "]":
                _fault(path, text.count("\n", 0, position) + 1, "a comma before the end of the list", expected)
        elif text[position : position + 1] != "]":
            _fault(path, text.count("\n", 0, position) + 1, "the list does not go on with , or ]", expected)
    if text[position + 1 :].strip(_BLANKS):
        _fault(path, text.count("\n", 0, position) + 1, "text after the end of the list", expected)


def _skip_blanks(text: str, position: int) -> int:
    """First position from here on that is not JSON white space."""
    while position < len(text) and text[position] in _BLANKS:
        position += 1
    return position


def _decoded(path: Path, line: int, raw: bytes, expected: str) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        line += raw.count(b"\n", 0, error.start)
        _fault(path, line, f"not UTF-8 (byte 0x{raw[error.start]:02x})", expected)


def _check_unicode(path: Path, line: int, row: dict[str, Any], expected: str) -> None:
    """Refuse lone surrogates: JSON lets them in as escapes, then tokenizers and every write to a file fail on them."""
    for name, value in row.items():
        try:
            json.dumps([name, value], ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            field = name.encode("utf-8", "backslashreplace").decode()
            _fault(path, line, f"field '{field}' holds half of a surrogate pair, which is not text", expected)


def _check_text(path: Path, line: int, row: dict[str, Any], name: str, text_columns: Sequence[str]) -> None:
    if name not in row:
        _fault(path, line, f"field '{name}' is missing", _expected(text_columns))
    if not isinstance(row[name], str):
        _fault(path, line, f"field '{name}' is {_kind(row[name])} where text is needed", _expected(text_columns))


def _kind(value: Any) -> str:
    """What a JSON value is, in words."""
    if value is None:
        return "null"
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return _KINDS.get(type(value), "text")


def _expected(text_columns: Sequence[str]) -> str:
    names = text_columns or ("prompt",)
    return "{" + ", ".join(f'"{name}": "..."' for name in names) + "}"


def _fault(path: Path, line: int, what: str, expected: str) -> NoReturn:
    raise UserError(f"{path}:{line}: {what}; expected {expected}")

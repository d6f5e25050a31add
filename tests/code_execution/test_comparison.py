from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dschat.code_execution.comparison import (
    MAX_OUTPUT_BYTES,
    MalformedOutput,
    parse_result,
    published_text_matches,
    text_difference,
    value_difference,
)


@pytest.mark.parametrize(
    ("printed", "expected"),
    [
        ("3\n", "3"),
        ("3", "3\n\n"),
        ("  1   2\t3 \r\n\n4", "1 2 3\n4"),
        ("", "\n"),
        ("1\n\n2", "1\n2"),
        ("3.0", "3"),
        ("3.000", "3.0"),
        ("+3.5", "3.5"),
        ("0.3333333", "0.33333333"),
        ("1e3", "1000.0"),
        ("1e3", "1000"),
        ("1e-10", "0.0"),
        ("-0.0", "0"),
        ("1000000.4", "1000000.0"),
        ("YES", "YES"),
        ("nan", "nan"),
        ("äöü", "äöü"),
    ],
)
def test_right_outputs(printed: str, expected: str) -> None:
    assert text_difference(printed.encode(), expected) is None


@pytest.mark.parametrize(
    ("printed", "expected", "difference"),
    [
        ("4", "3", "line 1: '4' instead of '3'"),
        ("", "3", "0 lines instead of 1"),
        ("1\n2", "1", "2 lines instead of 1"),
        ("1 2", "1\n2", "line 1: 2 items instead of 1"),
        ("2 1", "1 2", "line 1: '2' instead of '1'"),
        ("2\n1", "1\n2", "line 1: '2' instead of '1'"),
        ("1 1 2", "1 2", "line 1: 3 items instead of 2"),
        ("yes", "YES", "line 1: 'yes' instead of 'YES'"),
        ("007", "7", "line 1: '007' instead of '7'"),
        ("0111", "111", "line 1: '0111' instead of '111'"),
        ("50000000000000001", "50000000000000000", "line 1: '50000000000000001' instead of '50000000000000000'"),
        ("2.0000000001", "2", "line 1: '2.0000000001' instead of '2'"),
        ("0.123", "0.12345678", "line 1: '0.123' instead of '0.12345678'"),
        ("1000002.0", "1000000.0", "line 1: '1000002.0' instead of '1000000.0'"),
        ("0.00000001", "0.0", "line 1: '0.00000001' instead of '0.0'"),
        ("nan", "1.0", "line 1: 'nan' instead of '1.0'"),
        ("inf", "1.0", "line 1: 'inf' instead of '1.0'"),
        ("1_0.0", "10.0", "line 1: '1_0.0' instead of '10.0'"),
        ("１.0", "1.0", "line 1: '１.0' instead of '1.0'"),
        ("1e999999", "1.0", "line 1: '1e999999' instead of '1.0'"),
        ("1e9999999999999999999", "1.0", "line 1: '1e9999999999999999999' instead of '1.0'"),
    ],
)
def test_wrong_outputs(printed: str, expected: str, difference: str) -> None:
    assert text_difference(printed.encode(), expected) == difference


def test_undecodable_and_endless_output_is_wrong_and_harmless() -> None:
    assert text_difference(b"\xff\xfe", "3") is not None
    assert text_difference(b"3" + b" " * MAX_OUTPUT_BYTES, "3") == "printed more than 1048576 bytes"
    long = b"9" * MAX_OUTPUT_BYTES
    assert text_difference(long, "1.5") is not None
    assert text_difference(long[:-1] + b"x", "1.5") is not None


def test_a_difference_is_one_short_printable_line() -> None:
    text = text_difference("\udce9\x07".encode("utf-8", "surrogatepass") + b"x" * 500, "3")
    assert text is not None
    assert len(text) < 120
    assert text.isprintable()
    assert text.encode()


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e-7, 1e-7))
def test_floats_near_each_other_agree(expected: float, error: float) -> None:
    printed = repr(expected * (1 + error))
    if math.isfinite(float(printed)):
        assert text_difference(printed.encode(), repr(expected)) is None
        assert value_difference(float(printed), expected) is None


@given(st.floats(1e-3, 1e100), st.sampled_from([1 + 1e-5, 1 - 1e-5, -1.0, 2.0]))
def test_floats_far_from_each_other_differ(expected: float, factor: float) -> None:
    assert text_difference(repr(expected * factor).encode(), repr(expected)) is not None
    assert value_difference(expected * factor, expected) is not None


@given(st.integers(), st.integers())
def test_integers_agree_only_with_themselves(printed: int, expected: int) -> None:
    assert (text_difference(str(printed).encode(), str(expected)) is None) == (printed == expected)
    assert (value_difference(printed, expected) is None) == (printed == expected)


@given(st.text(), st.text())
def test_text_agrees_if_tokens_and_lines_do(printed: str, expected: str) -> None:
    def tokens(text: str) -> list[list[str]]:
        return [line.split() for line in text.split("\n") if line.split()]

    raw = printed.encode("utf-8", "surrogatepass")
    seen = tokens(raw.decode("utf-8", "replace"))
    if seen == tokens(expected):
        assert text_difference(raw, expected) is None
    elif [len(line) for line in seen] != [len(line) for line in tokens(expected)]:
        assert text_difference(raw, expected) is not None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(json_values)
def test_every_value_agrees_with_itself_through_json(value: Any) -> None:
    assert value_difference(parse_result(json.dumps(value).encode()), value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (3.0, 3), (3, 3.0), ([1, 2], (1, 2)), ([[1], [2]], [(1,), (2,)]), ({"1": 2}, {1: 2}), ("a", "a"),
        (0.1 + 0.2, 0.3), (math.nan, math.nan), (math.inf, math.inf), (None, None), (10**400, 10**400), (True, True),
    ],
)  # fmt: skip
def test_right_values(value: Any, expected: Any) -> None:
    assert value_difference(value, expected) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (True, 1), (1, True), (False, 0), ("1", 1), (1, "1"), (math.nan, 1.0), (1.0, math.nan), (math.nan, None),
        ([1], 1), (1, [1]), ([1, 2], [2, 1]), ([1, 1], [1]), ({"a": 1}, {"b": 1}), ({"a": 1}, {}), (None, 0), (0, None),
        (50000000000000001, 50000000000000000), (5e16, 50000000000000001), (10**400, 1.5), (1.5, 10**400),
        (math.inf, 1.0), (-math.inf, math.inf), (10**400, math.inf), ("", None), ([], {}), ({}, []), (3.0001, 3),
    ],
)  # fmt: skip
def test_wrong_values(value: Any, expected: Any) -> None:
    difference = value_difference(value, expected)
    assert difference is not None
    assert " instead of " in difference


def test_wrapped_values_only_where_allowed() -> None:
    assert value_difference(3, [3], may_be_wrapped=True) is None
    assert value_difference([3], [3], may_be_wrapped=True) is None
    assert value_difference(3, [3, 4], may_be_wrapped=True) is not None
    assert value_difference([3], 3, may_be_wrapped=True) is not None


@pytest.mark.parametrize(
    ("output", "reason"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff", "not JSON"),
        (b"[1] 2", "not JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'"' + b"x" * MAX_OUTPUT_BYTES + b'"', "more than 1048576 bytes"),
    ],
)
def test_malformed_results_are_named(output: bytes, reason: str) -> None:
    with pytest.raises(MalformedOutput, match=reason):
        parse_result(output)


def test_values_too_deep_to_compare_are_wrong() -> None:
    deep: list[Any] = []
    for _ in range(900):
        deep = [deep]
    wider = [*deep, 1]
    assert value_difference(deep, wider) is not None


@pytest.mark.parametrize(
    ("printed", "expected", "matches"),
    [
        ("1 2 3", "3 2 1", True),
        ("1 2", "1 1 1 2", True),
        ("2\n1", "1\n2", True),
        ("0.123", "0.1231", True),
        ("1.00001", "1.0", True),
        ("0.5", "0.6", False),
        ("1 2", "1\n2", False),
        ("", "1", False),
        ("3", "3", True),
    ],
)
def test_published_leniencies(printed: str, expected: str, matches: bool) -> None:
    assert published_text_matches(printed.encode(), expected) == matches


def test_integers_compare_exactly_where_numpy_and_floats_would_not() -> None:
    assert np.isclose(5e16, 5e16 + 1)
    assert float("50000000000000001") == 5e16
    assert Decimal("50000000000000001") != Decimal("5e16")
    assert text_difference(b"50000000000000001", "50000000000000000") is not None

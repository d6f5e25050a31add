"""JSON with integers of any length, under Python's limit of 4,300 digits."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dschat.code_execution.comparison import parse_result, value_difference
from dschat.code_execution.long_integers import digits, dump_json, load_json, load_untrusted_json

LONG = 10**9_999 + 7
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@pytest.fixture(autouse=True)
def python_s_own_limit() -> Iterator[None]:
    before = sys.get_int_max_str_digits()
    sys.set_int_max_str_digits(sys.int_info.default_max_str_digits)
    yield
    sys.set_int_max_str_digits(before)


@given(VALUES)
def test_what_python_can_write_is_written_alike(value: Any) -> None:
    assert dump_json(value) == json.dumps(value)
    assert dump_json(value, sort_keys=True) == json.dumps(value, sort_keys=True)
    # a long integer at the end sends everything through our own writer
    assert dump_json([value, LONG]) == f"[{json.dumps(value)}, {digits(LONG)}]"


def test_long_integers_come_back() -> None:
    value = [LONG, -LONG, {"b": [LONG, 1.5, "x"], "a": {"c": [True, None, -LONG]}}]
    text = dump_json(value)
    assert load_json(text) == value
    assert dump_json(load_json(text)) == dump_json(load_untrusted_json(text)) == text


def test_digits_are_exact_and_plain() -> None:
    assert digits(LONG) == "1" + "0" * 9_998 + "7"
    assert [digits(n) for n in (0, -7, 10**20, 10**40)] == ["0", "-7", "1" + "0" * 20, "1" + "0" * 40]


def test_trusted_text_gives_integers_and_the_rest_what_equals_them() -> None:
    trusted, other = load_json(digits(LONG)), load_untrusted_json(digits(LONG))
    assert (type(trusted), type(other)) == (int, Decimal)
    assert trusted == other == LONG
    assert other != LONG + 1


def test_what_is_no_json_is_refused_or_written_as_the_caller_says() -> None:
    for value in ({1, 2}, object(), [LONG, object()], {(1, 2): LONG}):
        with pytest.raises(TypeError):
            dump_json(value)
    assert dump_json([LONG, {1}], default=str) == f'[{digits(LONG)}, "{{1}}"]'


def test_a_circle_is_refused() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(RecursionError):
        dump_json(circle)


def test_a_result_of_a_mebibyte_of_digits_costs_the_grader_no_time() -> None:
    text = b"7" * 2**20
    began = time.process_time()
    value = parse_result(text)
    assert value_difference(value, 5) == f"{'7' * 40}… instead of 5"
    assert value_difference([value], [1.5]) is not None
    assert value_difference(value, "x") is not None
    assert time.process_time() - began < 1  # as an int it takes 14 s to read and 40 s to show


def test_long_results_are_compared_exactly() -> None:
    text = dump_json([LONG, {"a": -LONG}]).encode()
    assert value_difference(parse_result(text), [LONG, {"a": -LONG}]) is None
    assert value_difference(parse_result(text), [LONG, {"a": 1 - LONG}]) is not None
    assert value_difference(parse_result(dump_json(LONG).encode()), True) is not None

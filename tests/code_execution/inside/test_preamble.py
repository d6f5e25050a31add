"""Names that programs find without importing them."""

from __future__ import annotations

import math

import numpy

from dschat.code_execution.inside.preamble import load_preamble


def test_programs_find_the_names_of_the_published_harness() -> None:
    names = load_preamble()
    assert names["math"] is math and names["sqrt"] is math.sqrt and names["np"] is numpy
    found: dict[str, object] = {}
    exec("result = [Counter('aab')['a'], gcd(12, 18), list(accumulate([1, 2])), bisect_left([1, 3], 2)]", names, found)
    assert found["result"] == [2, 6, [1, 3], 1]

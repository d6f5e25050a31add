"""The page about faults names tests that exist, at least one for every fault."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.launch import REPOSITORY

PAGE = REPOSITORY / "docs/faults.md"
NAMED = re.compile(r"`([\w/]+\.py)::(test_\w+)`")
ROWS = [line for line in PAGE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| what ")]
FAULTS = 48
"""Rows of the page: the faults that the program is built against, and the signs of a run that goes wrong."""


@cache
def names_of_tests(file: Path) -> set[str]:
    functions = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef))
    return {function.name for function in functions}


def test_no_fault_is_lost_from_the_page() -> None:
    assert len(ROWS) == FAULTS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip()[:40])
def test_every_fault_names_tests_that_exist(row: str) -> None:
    what, seen, tests = (cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1])
    assert what and seen
    names = NAMED.findall(tests)
    assert names
    assert len(names) == tests.count("`") / 2  # nothing that the pattern does not read
    for file, test in names:
        assert test in names_of_tests(REPOSITORY / "tests" / file), f"{file} has no {test}"

"""Runs programs that a model wrote, contained, and grades them. Needs the standard library only; see sandbox.py.

from dschat.code_execution import run_tests
report = run_tests("print(int(input()) + 1)", {"inputs": ["1\\n"], "outputs": ["2\\n"]})
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "GradingPool": "pool",
    "GradingRules": "apps_tests",
    "Outcome": "apps_tests",
    "TestReport": "apps_tests",
    "extract_program": "answers",
    "open_sandbox": "sandbox",
    "run_tests": "apps_tests",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    """Import on first use: this file also lies inside the sandbox, where none of these modules may be loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

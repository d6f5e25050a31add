"""What was skipped and why, at the end of a test session."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest

SHOWN = 4
"""Tests named for a reason; of more, the rest is counted."""


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show reasons and tests below everything else."""
    reports = terminalreporter.stats.get("skipped", [])
    if reports:
        terminalreporter.section(f"{len(reports)} tests were skipped")
        for line in told((report.nodeid, reason_of(report)) for report in reports):
            terminalreporter.write_line(line)


def reason_of(report: pytest.TestReport) -> str:
    """Why a test was skipped; pytest keeps it as (file, line, "Skipped: reason")."""
    found = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return found.removeprefix("Skipped: ")


def told(skipped: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of text: each reason with the tests that it kept from running, those of a parametrised test together.

    Args:
        skipped: node ids and reasons.
    """
    by_reason: Mapping[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for test, reason in skipped:
        by_reason[reason][test.partition("[")[0]] += 1
    lines = []
    for reason, tests in sorted(by_reason.items()):
        lines.append(f"{reason}: {sum(tests.values())}")
        for test, count in list(tests.items())[:SHOWN]:
            lines.append(f"    {test}" + (f" ({count} cases)" if count > 1 else ""))
        if len(tests) > SHOWN:
            lines.append(f"    and {len(tests) - SHOWN} more")
    return lines

"""Skipped tests are named at the end, with the reason, in few lines."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.launch import REPOSITORY
from tests.skipped import SHOWN, told


def test_cases_of_a_test_are_counted_and_many_tests_are_cut() -> None:
    cases = [(f"tests/test_a.py::test_one[{number}]", "no bwrap") for number in range(30)]
    tests = [(f"tests/test_b.py::test_{number}", "no GPU") for number in range(SHOWN + 3)]
    lines = told([*cases, *tests])
    assert lines[0] == f"no GPU: {SHOWN + 3}"
    assert lines[SHOWN + 1] == "    and 3 more"
    assert lines[SHOWN + 2 :] == ["no bwrap: 30", "    tests/test_a.py::test_one (30 cases)"]


def test_a_session_ends_with_them(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    for name in ("__init__.py", "skipped.py"):
        (tmp_path / "tests" / name).write_text((REPOSITORY / "tests" / name).read_text())
    (tmp_path / "tests" / "conftest.py").write_text("from tests.skipped import pytest_terminal_summary\n")
    (tmp_path / "tests" / "test_it.py").write_text(
        "import pytest\n\n@pytest.mark.skipif(True, reason='not here')\ndef test_marked(): ...\n\n"
        "def test_asked(): pytest.importorskip('no_such_library')\n"
    )
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    ended = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "2 tests were skipped" in ended.stdout
    assert "not here: 1\n    tests/test_it.py::test_marked\n" in ended.stdout
    assert "could not import 'no_such_library'" in ended.stdout and "tests/test_it.py::test_asked" in ended.stdout

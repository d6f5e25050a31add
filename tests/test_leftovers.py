"""The files that a test session plants: there while it runs, gone afterwards, and never in the place of a real run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from quickstart.options import SUMMARY_NAME, parse_options
from tests.launch import REPOSITORY
from tests.leftovers import ABSENT, LEFTOVERS, MARKER, clear, plant


def files(root: Path) -> dict[str, bytes]:
    """Every file below a folder."""
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_this_session_runs_among_leftovers(request: pytest.FixtureRequest) -> None:
    assert request.config.stash[ABSENT] == []


def test_the_quickstarts_take_what_is_planted_for_finished_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path)
    for name in ("quickstart", "quickstart_apps"):
        with pytest.raises(SystemExit):
            parse_options(["--output", str(tmp_path / "runs" / name)])
        assert "holds a finished run; add --overwrite" in capsys.readouterr().err


def test_git_ignores_everything_that_is_planted(tmp_path: Path) -> None:
    ignored = (REPOSITORY / ".gitignore").read_text().split()
    for place in LEFTOVERS:
        assert any(f"{place}/".startswith(folder) for folder in ignored), place


def test_everything_that_was_planted_goes(tmp_path: Path) -> None:
    (tmp_path / "README.md").touch()
    plant(tmp_path)
    assert len(files(tmp_path)) > len(LEFTOVERS)
    plant(tmp_path)  # by a session that follows one that was killed
    clear(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["README.md"]


@pytest.mark.parametrize("place", LEFTOVERS)
def test_a_real_run_is_left_alone(place: str, tmp_path: Path) -> None:
    real = tmp_path / place / "summary.json"
    real.parent.mkdir(parents=True)
    real.write_text("mine")
    (real.parent / "empty").mkdir()
    plant(tmp_path)
    assert sorted(os.listdir(real.parent)) == ["empty", "summary.json"]
    clear(tmp_path)
    assert files(tmp_path) == {f"{place}/summary.json": b"mine"}
    assert (real.parent / "empty").is_dir()


def test_a_real_run_in_the_place_of_a_planted_one_is_left_alone(tmp_path: Path) -> None:
    plant(tmp_path)
    summary = tmp_path / "runs/quickstart" / SUMMARY_NAME
    summary.write_text("mine")
    before = files(tmp_path / "runs/quickstart")
    clear(tmp_path)
    assert files(tmp_path / "runs/quickstart") == {name: text for name, text in before.items() if name != MARKER}
    clear(tmp_path)
    assert summary.read_text() == "mine"


SESSION = """
import time

def test_that_is_stopped():
    print("running", flush=True)
    time.sleep(60)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_session_that_is_stopped_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("__init__.py", "launch.py", "leftovers.py"):
        (tests / name).write_text((REPOSITORY / "tests" / name).read_text())
    (tests / "conftest.py").write_text("from tests.leftovers import pytest_sessionfinish, pytest_sessionstart\n")
    (tests / "test_session.py").write_text(SESSION)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    words = [sys.executable, "-m", "pytest", "-s", "-p", "no:cacheprovider", "tests"]
    variables = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    session = subprocess.Popen(words, cwd=tmp_path, env=variables, stdout=subprocess.PIPE, text=True)
    assert session.stdout is not None
    for line in session.stdout:
        if "running" in line:
            break
    assert (tmp_path / "runs/quickstart" / MARKER).is_file()
    session.send_signal(number)
    session.communicate(timeout=60)
    assert session.returncode == pytest.ExitCode.INTERRUPTED
    assert not (tmp_path / "runs").exists()

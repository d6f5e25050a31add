"""Launches of the quickstarts: one after the other, with clear failures."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from quickstart import stages
from quickstart.stages import Stage, StageFailed, launch_words, run_stage
from quickstart.summaries import FULL, plan
from tests.scripts.quickstart.test_summaries import options


def test_launch_is_a_list_of_words_with_its_own_port(tmp_path: Path) -> None:
    stage = plan(FULL, options(tmp_path / "a folder"), num_ranks=2)[0]

    words = launch_words(stage, num_ranks=2)

    assert words[1:3] == ["--num_gpus", "2"]
    assert 1024 <= int(words[words.index("--master_port") + 1]) < 65536
    assert str(tmp_path / "a folder" / "sft") in words


def run_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Run a stage whose program is a line of Python; returns the screen and the log."""
    monkeypatch.setattr(stages, "launch_words", lambda stage, *, num_ranks: [sys.executable, "-c", code])
    screen = io.StringIO()
    log = tmp_path / "logs" / "stage.log"
    stage = Stage("stage", "Step 9: a test", tmp_path, "main.py", {})
    try:
        run_stage(stage, log, Console(file=screen, width=100), num_ranks=2)
    except StageFailed:
        screen.write("[failed]")
    return screen.getvalue(), log


def test_output_goes_to_the_log_with_the_command_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, log = run_python("import sys; print('one'); print('two', file=sys.stderr)", tmp_path, monkeypatch)

    lines = log.read_text().splitlines()
    assert lines[0].startswith(f"# cd {tmp_path} && ")
    assert set(lines[1:]) == {"one", "two"}
    assert "Step 9: a test" in screen
    assert "[failed]" not in screen


def test_failed_stage_shows_its_last_lines_command_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; [print(f'line {i}.') for i in range(40)]; sys.exit(3)"

    screen, log = run_python(code, tmp_path, monkeypatch)

    assert "[failed]" in screen
    assert "status 3" in screen
    assert str(log) in screen
    assert f"command: cd {tmp_path} && {sys.executable}" in screen
    assert "line 39." in screen
    assert "line 20." in screen
    assert "line 19." not in screen


def test_stage_does_not_outlive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    # the launcher's ranks are children of children
    code = f"import subprocess, sys; print('ready', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(stages, "NOISE", InterruptingPattern(alive))

    with pytest.raises(KeyboardInterrupt):
        run_python(code, tmp_path, monkeypatch)

    time.sleep(0.3)
    alive.unlink(missing_ok=True)
    time.sleep(0.3)
    assert not alive.exists()


class InterruptingPattern:
    """Stands in for Ctrl-C at the first line of output, once the grandchild is at work."""

    def __init__(self, alive: Path) -> None:
        self.alive = alive

    def search(self, line: str) -> None:
        assert line == "ready\n"
        deadline = time.monotonic() + 20
        while not self.alive.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt

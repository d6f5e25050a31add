"""The terminal judge (`judging/human_eval.py`) in a real terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.judging.helpers import ROOT, environment, read_rows, run_program, summary_of, write_results

PROGRAM = ROOT / "evaluation" / "human-eval.py"
ROWS = 5
READY = "q save and quit"
SHOWN = re.compile(r"(alpha|beta)(\d)")


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    a = write_results(tmp_path / "a.jsonl", [f"alpha{row}" for row in range(ROWS)])
    b = write_results(tmp_path / "b.jsonl", [f"beta{row}" for row in range(ROWS)])
    given = ["--model_a", a, "--model_b", b, "--dataset", "summarize", "--output", tmp_path / "new" / "out.jsonl"]
    return [str(word) for word in given]


def press(words: Sequence[str], keys: Sequence[str], *, kill: bool = False) -> tuple[list[list[tuple[str, str]]], str]:
    """Start the program in a terminal and press one key per question.

    A key of "alpha" or "beta" presses the number of the side on which that model's answer is shown.

    Returns:
        the answers that each screen showed, in their order, and everything that was written.
    """
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, str(PROGRAM), *words], cwd=ROOT, env=environment(TERM="xterm"), stdin=terminal,
        stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=as_in_a_terminal,
    )  # fmt: skip
    os.close(terminal)
    screens, written = [], ""
    for key in keys:
        text = read_until(controller, READY)
        written += text
        screens.append(SHOWN.findall(text))
        wanted = [name for name, _ in screens[-1]]
        os.write(controller, (str(wanted.index(key) + 1) if key in wanted else key).encode())
    if kill:
        read_until(controller, READY)
        process.kill()
    written += read_until(controller, None)
    process.wait(timeout=30)
    os.close(controller)
    return screens, written


def as_in_a_terminal() -> None:
    """In the new process: Ctrl-C is a signal, and is not ignored as it is below a shell's background job."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def read_until(controller: int, mark: str | None, seconds: float = 30) -> str:
    """What the program writes up to a mark, or to its end."""
    text, end = "", time.monotonic() + seconds
    while mark is None or mark not in text:
        assert time.monotonic() < end, text
        if not select.select([controller], [], [], 0.1)[0]:
            continue
        try:
            piece = os.read(controller, 65536)
        except OSError:  # the other side is closed
            piece = b""
        if not piece:
            assert mark is None, text
            return text
        text += piece.decode(errors="replace")
    return text


def test_verdicts_are_blind_saved_at_once_and_survive_a_kill(words):
    output = Path(words[-1])
    screens, written = press(words, ["alpha", "alpha"], kill=True)
    assert "a.jsonl" not in written and "reward" not in written
    assert [row["winner"] for row in read_rows(output)] == ["A", "A"]
    more, written = press(words, ["beta", "3", "alpha"])
    rows = [screen[0][1] for screen in (*screens, *more)]
    assert sorted(rows) == list("01234") and rows != list("01234")
    assert {screen[0][0] for screen in (*screens, *more)} == {"alpha", "beta"}  # either model may be shown first
    assert [row["winner"] for row in read_rows(output)] == ["A", "A", "B", "Tie", "A"]
    assert "win rate of A        70.0 %" in written
    summary = summary_of(output)
    expected = {"judge": "human", "wins": 3, "ties": 1, "losses": 1, "judged": 5, "pending": 0}
    assert {name: summary[name] for name in expected} == expected
    assert summary["shown_first_chosen"] + summary["shown_second_chosen"] == 4


def test_undo_takes_the_last_verdict_back_and_skip_leaves_a_pair_for_later(words):
    output = Path(words[-1])
    screens, _ = press(words, ["alpha", "u", "beta", "s", "alpha", "q"])
    assert screens[0] == screens[2] != screens[1]
    assert [row["winner"] for row in read_rows(output)] == ["B", "A"]
    assert summary_of(output)["pending"] == 3
    later, _ = press(words, ["u", "alpha", "\x03"])
    assert later[0] == screens[3]  # what was skipped comes back
    assert [row["winner"] for row in read_rows(output)] == ["B", "A"]


def test_keys_may_come_from_a_pipe_and_its_end_quits(words):
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *words], cwd=ROOT, env=environment(), input="3\n3\n", text=True,
        capture_output=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert summary_of(Path(words[-1]))["ties"] == 2


def test_bad_input_is_one_sentence(words, tmp_path):
    wrong = ["no" if word == "summarize" else word for word in words]
    done = run_program(PROGRAM, *wrong)
    assert done.returncode == 2 and "--dataset no is unknown" in done.stderr and done.stderr.count("\n") == 1
    assert not (tmp_path / "new").exists()

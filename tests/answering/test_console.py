"""What the front ends show comes through as it is."""

from __future__ import annotations

import pytest

from dschat.answering.console import progress_bar, show


def test_marks_and_long_lines_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    text = "[bold]no mark-up[/bold] " + "word " * 100 + "\n{}"
    show(text)
    assert capsys.readouterr().out == text + "\n"


def test_a_progress_bar_is_drawn_on_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_bar("answers", 3, done=1) as advance:
        advance(2)
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err == ""

"""The guard around every program: exit statuses, one sentence, and nothing that dies in a print."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from dschat.errors import RankFault, RankMistake, Stopped, TrainingFault, UserError, run_guarded

PROGRAM = r"""
import logging
from dschat.errors import run_guarded
from dschat.runtime.logging import set_up_logging, show_table
def main():
    set_up_logging()
    logging.getLogger("dschat").info("caf\u00e9 \U0001f642 half \ud83d")
    show_table("answers", ("prompt", "answer"), [("\u00e9\U0001f642 \0", "half \ud83d")])
    print("\U0001f642 survived")
run_guarded(main)
"""


def test_characters_that_the_output_cannot_take_end_nothing() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert b"Error" not in done.stderr
    text = done.stdout.decode("ascii")
    assert text.count("half \\ud83d") == 2
    assert text.strip().endswith("\\U0001f642 survived")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (UserError("a mistake; mend it"), 2, "error: a mistake; mend it\n"),
        (TrainingFault("a fault"), 1, "error: a fault\n"),
        (Stopped("saved"), 75, "stopped: saved\n"),
    ],
)
def test_statuses_and_sentences(
    error: Exception, status: int, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def main() -> None:
        raise error

    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as end:
        run_guarded(main)
    assert end.value.code == status
    assert capsys.readouterr().err == text


def test_other_ranks_speak_only_for_themselves(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "3")
    for error, text in (
        (UserError("all know"), ""),
        (TrainingFault("all know"), ""),
        (RankFault("mine"), "error on rank 3: mine\n"),
        (RankMistake("mine"), "error on rank 3: mine\n"),
    ):

        def main(error: Exception = error) -> None:
            raise error

        with pytest.raises(SystemExit):
            run_guarded(main)
        assert capsys.readouterr().err == text

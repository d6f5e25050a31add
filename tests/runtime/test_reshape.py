"""Engines for another number of ranks; that runs go on alike is asked in tests/resume/test_two_ranks.py."""

from __future__ import annotations

import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dschat.errors import UserError
from dschat.runtime.reshape import load_reshaped


class Engine:
    """Remembers how its checkpoint was loaded."""

    def __init__(self) -> None:
        self._config = SimpleNamespace(load_universal_checkpoint=False)
        self.loaded: list[tuple[str, str, bool]] = []

    def load_checkpoint(self, folder: str, *, tag: str) -> tuple[str, dict[str, Any]]:
        """As DeepSpeed's engine."""
        self.loaded.append((folder, tag, self._config.load_universal_checkpoint))
        return folder, {}


def test_an_engine_loads_the_converted_folder_and_is_plain_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[list[str]] = []

    def run(words: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        ran.append(words)
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    engine, scratch = Engine(), tmp_path / "scratch"
    assert load_reshaped(engine, tmp_path / "state", "actor", scratch) == str(scratch)
    assert engine.loaded == [(str(scratch), "actor", True)]
    assert not engine._config.load_universal_checkpoint
    assert not scratch.exists()
    (words,) = ran
    assert words[words.index("--input_folder") + 1] == str(tmp_path / "state/actor")
    assert words[words.index("--output_folder") + 1] == str(scratch / "actor")


def test_what_cannot_be_converted_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = subprocess.CompletedProcess([], 1, "", "Traceback\nKeyError: 'step'\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UserError, match=r"cannot be reshaped for another number of ranks \(KeyError: 'step'\); start"):
        load_reshaped(Engine(), tmp_path / "state", "actor", tmp_path / "scratch")

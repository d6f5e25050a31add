"""The command that turns a GGUF file into a model folder: where it writes, what it says, how it fails."""

from __future__ import annotations

import logging
import sys
from collections import namedtuple
from pathlib import Path

import pytest

from dschat.errors import UserError, run_guarded
from dschat.programs.import_gguf import main
from dschat.tools import import_gguf as tool
from dschat.tools.import_gguf import ImportOptions, read_options
from tests.tools.gguf_files import imported, refused


class TestTheOutputFolder:
    def test_is_not_replaced_unasked_nor_if_it_is_no_model(self, file: Path, tmp_path: Path) -> None:
        (tmp_path / "photos").mkdir()
        (tmp_path / "photos" / "one.jpg").touch()
        with pytest.raises(UserError, match="is not empty; name another folder, or replace a model with --overwrite"):
            imported(file, tmp_path / "photos")
        with pytest.raises(UserError, match="holds other files than a model"):
            imported(file, tmp_path / "photos", overwrite=True)
        with pytest.raises(UserError, match="is a file; name a folder"):
            imported(file, tmp_path / "photos" / "one.jpg", overwrite=True)
        with pytest.raises(UserError, match=r"the import stopped at \S+one.jpg \(.+\); check --gguf and --output"):
            imported(file, tmp_path / "photos" / "one.jpg" / "model")
        assert (tmp_path / "photos" / "one.jpg").exists()

    def test_too_little_disk_is_told_before_reading(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(tool.shutil, "disk_usage", lambda folder: usage(0, 0, 50_000_000))
        message = refused(file, tmp_path / "model")
        assert "needs 0.10 GB" in message
        assert "0.05 GB are free" in message


class TestTheCommandLine:
    def test_gives_the_options(self) -> None:
        words = "--gguf a b --output out --dtype bf16 --sha256 ff --overwrite --question Why? --skip_check".split()
        assert read_options(words) == ImportOptions(
            gguf=("a", "b"), output=Path("out"), dtype="bf16", sha256="ff", overwrite=True, question="Why?",
            skip_check=True,
        )  # fmt: skip

    def test_a_mistake_is_one_sentence_and_status_2(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sys, "argv", ["import_gguf.py", "--gguf", "none.gguf", "--output", str(tmp_path / "out")])
        with pytest.raises(SystemExit) as ended:
            run_guarded(main)
        assert ended.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: --gguf none.gguf: there is no file ")

    def test_question_and_answer_are_shown(self, file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        with caplog.at_level(logging.INFO, logger="dschat"):
            imported(file, tmp_path / "model", question="the sum of 3")
        assert "prompt:\n<bos>user: the sum of 3<turn_end>\nassistant: \nanswer:\n" in caplog.text
        assert "answers end with <eos> (3), <turn_end> (300)" in caplog.text

    def test_the_missing_library_is_named_with_its_command(
        self, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tool, "find_spec", lambda name: None)
        assert "pip install 'dschat[gguf]'" in refused(file, tmp_path / "model")

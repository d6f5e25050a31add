"""The arguments of the quickstart on programming problems."""

from __future__ import annotations

from pathlib import Path

import pytest

import quickstart.options
from quickstart.program_options import parse_options


def test_defaults_of_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quickstart.options, "ROOT", tmp_path)  # a finished run may lie in the true place
    assert parse_options([]).output == tmp_path / "runs" / "quickstart_apps"
    assert parse_options([]).seeds == 3
    assert parse_options(["--fast"]).seeds == 1
    assert parse_options(["--fast", "--seeds", "2"]).seeds == 2
    with pytest.raises(SystemExit) as ended:
        parse_options(["--seeds", "0"])
    assert ended.value.code == 2
    assert "--seeds must be at least 1" in capsys.readouterr().err

"""The quickstart's arguments: sensible defaults, and one sentence for each that cannot work."""

from __future__ import annotations

from pathlib import Path

import pytest

from quickstart import options
from quickstart.options import MARKER_NAME, SUMMARY_NAME, parse_options


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What is said about arguments that must be refused."""
    with pytest.raises(SystemExit) as ended:
        parse_options(words)
    assert ended.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_defaults_stay_within_the_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (options.ROOT / "scripts" / "quickstart.sh").is_file()
    monkeypatch.setattr(options, "ROOT", tmp_path)  # a finished run may lie in the true place

    found = parse_options([])

    assert found.output == tmp_path / "runs" / "quickstart"
    assert not found.fast
    assert not found.overwrite


def test_relative_output_is_taken_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert parse_options(["--output", "a/b", "--fast", "--seed", "7"]).output == tmp_path / "a" / "b"


def test_finished_run_is_only_replaced_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (MARKER_NAME, SUMMARY_NAME):
        (tmp_path / name).touch()

    assert "--overwrite" in complaint(capsys, "--output", str(tmp_path))
    assert parse_options(["--output", str(tmp_path), "--overwrite"]).overwrite


def test_interrupted_run_may_be_repeated(tmp_path: Path) -> None:
    (tmp_path / MARKER_NAME).touch()
    (tmp_path / "sft").mkdir()

    assert parse_options(["--output", str(tmp_path)]).output == tmp_path


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_folder_with_other_files_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...]
) -> None:
    (tmp_path / "thesis.tex").touch()

    assert "holds other files" in complaint(capsys, "--output", str(tmp_path), *more)
    assert (tmp_path / "thesis.tex").exists()


def test_file_in_place_of_a_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.touch()

    for output in (file, file / "below"):
        assert f"{file} is not a folder" in complaint(capsys, "--output", str(output))


def test_link_to_nowhere_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "gone")

    assert f"{link} is not a folder" in complaint(capsys, "--output", str(link))


@pytest.mark.parametrize("seed", ["-1", str(2**32), "one"])
def test_seed_that_no_generator_takes_is_refused(capsys: pytest.CaptureFixture[str], seed: str) -> None:
    assert "--seed" in complaint(capsys, f"--seed={seed}")


def test_shortened_and_unknown_flags_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("--fas", "--hel", "extra"):
        assert word in complaint(capsys, word)

"""What surrounds the quickstarts' launches."""

from __future__ import annotations

from pathlib import Path

from quickstart.surroundings import prepare_output


def test_only_the_quickstarts_own_files_are_removed(tmp_path: Path) -> None:
    prepare_output(tmp_path, ("sft", "logs", "summary.json"))
    for name in ("sft", "logs", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "summary.json").touch()

    prepare_output(tmp_path, ("sft", "logs", "summary.json"))

    assert sorted(path.name for path in tmp_path.iterdir()) == [".quickstart", "mine"]

"""Changes to files that a reader sees whole or not at all; kills between any two steps are in tests/resume."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from dschat.errors import RankFault, TrainingFault
from dschat.runtime import files


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_and_a_folder_are_replaced_and_nothing_stays_beside_them(tmp_path: Path) -> None:
    for content in (b"old", b"new"):
        files.write_whole(tmp_path / "file", content)
        files.aside(tmp_path / "folder").mkdir()
        (files.aside(tmp_path / "folder") / "part").write_bytes(content)
        files.replace_folder(tmp_path / "folder")
    assert (tmp_path / "file").read_bytes() == (tmp_path / "folder" / "part").read_bytes() == b"new"
    assert names(tmp_path) == ["file", "folder"]


def test_a_link_is_relative_and_takes_the_place_of_anything(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "latest" / "below").mkdir(parents=True)
    files.link(tmp_path / "a", tmp_path / "latest")
    files.link(tmp_path / "a", tmp_path / "latest")
    assert (tmp_path / "latest").readlink() == Path("a")
    files.remove(tmp_path / "latest")
    assert names(tmp_path) == ["a"]


def test_what_a_killed_run_left_is_put_back_or_deleted(tmp_path: Path) -> None:
    (tmp_path / f"{files.REPLACED}lost").mkdir()
    (tmp_path / f"{files.REPLACED}kept").mkdir()
    (tmp_path / "kept").mkdir()
    (tmp_path / f"{files.PRUNED}old").mkdir()
    (tmp_path / f"{files.ASIDE}unfinished").touch()
    files.sweep(tmp_path)
    assert names(tmp_path) == ["kept", "lost"]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (OSError(errno.ENOSPC, "full"), "the disk is full; "),
        (RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64 vs 0"), "the disk is full; "),
        (OSError(errno.EROFS, "Read-only file system"), r"Read-only file system; "),
    ],
)
def test_a_failed_write_is_one_sentence_and_leaves_nothing(error: Exception, reason: str, tmp_path: Path) -> None:
    aside = tmp_path / ".tmp-state"
    aside.mkdir()
    with (
        pytest.raises(RankFault, match=rf"the state could not be written to .*{reason}.* are free\); make room there!"),
        files.explained("the state", aside, advice="!"),
    ):
        raise error
    assert names(tmp_path) == []


def test_faults_of_training_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match=r"^NaN$"), files.explained("the state", tmp_path / "aside"):
        raise TrainingFault("NaN")

from __future__ import annotations

import logging
import multiprocessing
import os

import pytest

from dschat.data import cache
from dschat.data.cache import cached_folder, private_folder
from dschat.errors import UserError


def fill(folder):
    (folder / "sub").mkdir()
    (folder / "sub" / "rows.bin").write_bytes(bytes(range(100)))
    (folder / "report.json").write_text("{}")


class Builder:
    def __init__(self):
        self.calls = 0

    def __call__(self, folder):
        self.calls += 1
        fill(folder)


def leftovers(folder):
    return [entry.name for entry in folder.iterdir() if entry.name.startswith(".")]


def test_second_call_reads_what_the_first_built(tmp_path):
    build = Builder()
    first = cached_folder(tmp_path / "cache", "rows_1", build)
    second = cached_folder(tmp_path / "cache", "rows_1", build)
    assert first == second
    assert (second / "sub" / "rows.bin").read_bytes() == bytes(range(100))
    assert build.calls == 1
    assert leftovers(tmp_path / "cache") == []


def test_cache_and_its_entries_are_private(tmp_path):
    folder = cached_folder(tmp_path / "cache", "rows_1", fill)
    assert [oct(path.stat().st_mode & 0o777) for path in (folder.parent, folder)] == ["0o700", "0o700"]


def cut(folder):
    (folder / "sub" / "rows.bin").write_bytes(bytes(range(50)))


def flip(folder):
    content = bytearray(range(100))
    content[37] ^= 4
    (folder / "sub" / "rows.bin").write_bytes(bytes(content))


def lose(folder):
    (folder / "sub" / "rows.bin").unlink()


def lose_manifest(folder):
    (folder / "manifest.json").unlink()


def cut_manifest(folder):
    text = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(text[: len(text) // 2])


def other_manifest(folder):
    (folder / "manifest.json").write_text("[1, 2]")


@pytest.mark.parametrize("damage", [cut, flip, lose, lose_manifest, cut_manifest, other_manifest])
def test_damaged_entry_is_built_again_with_a_notice(tmp_path, caplog, damage):
    build = Builder()
    damage(cached_folder(tmp_path, "rows_1", build))
    with caplog.at_level(logging.WARNING):
        folder = cached_folder(tmp_path, "rows_1", build)
    assert build.calls == 2
    assert (folder / "sub" / "rows.bin").read_bytes() == bytes(range(100))
    assert "damaged" in caplog.text and str(folder) in caplog.text
    assert leftovers(tmp_path) == []


def test_failed_build_leaves_nothing_behind(tmp_path):
    def fail(folder):
        fill(folder)
        raise UserError("no rows")

    with pytest.raises(UserError, match="no rows"):
        cached_folder(tmp_path, "rows_1", fail)
    assert list(tmp_path.iterdir()) == []


def test_entry_of_the_faster_process_is_kept(tmp_path):
    def slow(folder):
        fill(folder)
        (folder / "who").write_text("slow")
        cached_folder(tmp_path, "rows_1", fast)

    def fast(folder):
        fill(folder)
        (folder / "who").write_text("fast")

    folder = cached_folder(tmp_path, "rows_1", slow)
    assert (folder / "who").read_text() == "fast"
    assert leftovers(tmp_path) == []


def ask(arguments):
    folder, number = arguments
    found = cached_folder(folder, "rows_1", fill)
    return number, (found / "sub" / "rows.bin").read_bytes()


def test_many_processes_at_once_agree(tmp_path):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        answers = pool.map(ask, [(tmp_path / "cache", number) for number in range(12)], chunksize=1)
    assert answers == [(number, bytes(range(100))) for number in range(12)]
    assert [entry.name for entry in (tmp_path / "cache").iterdir()] == ["rows_1"]


def test_cache_of_another_user_is_refused(tmp_path, monkeypatch):
    private_folder(tmp_path)
    owner = os.geteuid()
    monkeypatch.setattr(cache.os, "geteuid", lambda: owner + 1)
    with pytest.raises(UserError, match="belongs to another user") as caught:
        private_folder(tmp_path)
    assert str(tmp_path) in str(caught.value) and "--data_output_path" in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_planted_entry_of_another_user_is_refused(tmp_path):
    folder = cached_folder(tmp_path, "rows_1", fill)
    os.chown(folder, 54_321, -1)
    with pytest.raises(UserError, match="54321"):
        cached_folder(tmp_path, "rows_1", fill)


def test_place_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(UserError, match="cannot be made"):
        private_folder(tmp_path / "cache")


def test_folders_of_killed_builders_are_deleted_and_those_in_use_are_not(tmp_path):
    folder = tmp_path / "cache"
    cached_folder(folder, "rows_1", fill)
    names = (".building-rows_2-old", ".building-rows_2-used", ".building-rows_2-new", ".damaged-old")
    for name in names:
        (folder / name / "sub").mkdir(parents=True)
        if not name.endswith("new"):
            os.utime(folder / name, (0, 0))
    with cache._in_use(folder / names[1]):
        cached_folder(folder, "rows_3", fill)
    assert sorted(leftovers(folder)) == [names[2], names[1]]

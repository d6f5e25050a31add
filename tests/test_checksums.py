"""Checksums notice what a disk may do to files."""

from __future__ import annotations

import hashlib
from pathlib import Path

from dschat import checksums
from dschat.checksums import damage, file_record, files_below, folder_key


def test_a_record_is_size_and_sha256(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_record(path) == (3, hashlib.sha256(b"abc").hexdigest())


def test_files_are_listed_through_folders_in_order(tmp_path: Path) -> None:
    for name in ("b", "a/c", "a/b/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert files_below(tmp_path) == ["a/b/d", "a/c", "b"]


def test_damage_names_the_first_file_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_bytes(bytes(2000))
    records = {"weights": file_record(path)}
    assert damage(tmp_path, records) is None
    path.write_bytes(bytes(1999) + b"\1")
    assert damage(tmp_path, records) == "weights has other content than was written"
    path.write_bytes(bytes(1999))
    assert damage(tmp_path, records) == "weights has 1,999 bytes instead of 2,000"
    path.unlink()
    assert str(damage(tmp_path, records)).startswith(f"{path} cannot be read")


def test_a_folder_key_sees_names_sizes_and_both_ends(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(checksums, "SAMPLED_BYTES", 10)
    path = tmp_path / "weights"
    path.write_bytes(bytes(100))
    keys = {folder_key(tmp_path)}
    for content in (b"\1" + bytes(99), bytes(99) + b"\1", bytes(101)):
        path.write_bytes(content)
        keys.add(folder_key(tmp_path))
    path.rename(tmp_path / "other")
    keys.add(folder_key(tmp_path))
    assert len(keys) == 5

"""A manifest tells a whole state from any other folder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dschat.runtime.manifest import MANIFEST_NAME, DamagedState, Manifest, record_files, verify


def write_state(folder: Path) -> Manifest:
    (folder / "model").mkdir()
    (folder / "model" / "weights.pt").write_bytes(b"weights")
    (folder / "shared.pt").write_bytes(b"more")
    manifest = Manifest("ppo", 7, 1, {"--seed": 1}, 2.5, record_files(folder))
    manifest.write(folder)
    return manifest


def test_what_was_written_is_read_and_verified(tmp_path: Path) -> None:
    written = write_state(tmp_path)
    found = Manifest.read(tmp_path)
    assert verify(tmp_path, found) is None
    assert (found.stage, found.step, found.world_size, found.size) == ("ppo", 7, 1, 11)
    assert sorted(found.files) == ["model/weights.pt", "shared.pt"]
    assert found.versions == written.versions and {"python", "torch", "dschat"} <= found.versions.keys()
    (tmp_path / "shared.pt").write_bytes(b"morE")
    assert verify(tmp_path, found) == "shared.pt has other content than was written"


def test_a_manifest_that_was_changed_cut_or_never_written_is_noticed(tmp_path: Path) -> None:
    with pytest.raises(DamagedState, match="cannot be read: No such file"):
        Manifest.read(tmp_path)
    write_state(tmp_path)
    path = tmp_path / MANIFEST_NAME
    whole = path.read_text()
    path.write_text(whole.replace('"step": 7', '"step": 8'))
    with pytest.raises(DamagedState, match="has other content than was written"):
        Manifest.read(tmp_path)
    path.write_text(whole[:-30])
    with pytest.raises(DamagedState, match="is not whole"):
        Manifest.read(tmp_path)
    path.write_text("[]")
    with pytest.raises(DamagedState, match="is not whole"):
        Manifest.read(tmp_path)


def test_a_manifest_of_another_format_is_not_guessed_at(tmp_path: Path) -> None:
    replace(write_state(tmp_path), format=99).write(tmp_path)
    assert json.loads((tmp_path / MANIFEST_NAME).read_text())["format"] == 99
    with pytest.raises(DamagedState, match="has format 99, this version reads 1"):
        Manifest.read(tmp_path)

"""Input embeddings of a model folder: read alone where the weights can be opened, or by way of the whole model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from dschat.errors import UserError
from dschat.tools import embedding_table
from dschat.tools.embedding_table import read_embedding_table
from toys.models import make_causal_lm


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    make_causal_lm("llama", vocab_size=16).save_pretrained(path)
    return path


def table_of(folder: Path) -> Tensor:
    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


def test_only_the_embedding_table_is_read(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Path) -> Tensor:
        raise AssertionError("the whole model was loaded")

    monkeypatch.setattr(embedding_table, "_load_whole_model", refuse)
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    save_file(
        {"transformer.wte.weight": torch.ones(3, 5), "h.0.weight": torch.zeros(2)}, tmp_path / "first.safetensors"
    )
    index = {"weight_map": {"transformer.wte.weight": "first.safetensors", "h.1.weight": "not-there.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))

    torch.testing.assert_close(read_embedding_table(folder), table_of(folder))
    assert read_embedding_table(tmp_path).tolist() == [[1.0] * 5] * 3


def test_unknown_weight_names_fall_back_to_the_whole_model(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedding_table, "EMBEDDING_NAMES", ("nothing.like.it",))

    torch.testing.assert_close(read_embedding_table(folder), table_of(folder))


def test_folders_without_a_usable_table_are_refused_in_one_sentence(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no config\.json"):
        read_embedding_table(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="no input embeddings"):
        read_embedding_table(tmp_path)
    (tmp_path / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:100])
    with pytest.raises(UserError, match="damaged or incomplete"):
        read_embedding_table(tmp_path)

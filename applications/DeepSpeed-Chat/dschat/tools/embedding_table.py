"""The input embeddings of a model folder, read without the rest of the model where that can be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from dschat.errors import UserError

# how the architectures call their input embeddings, most common first
EMBEDDING_NAMES = (
    "embed_tokens.weight", "wte.weight", "word_embeddings.weight", "tok_embeddings.weight", "embed_in.weight",
    "token_embedding.weight", "shared.weight",
)  # fmt: skip


def read_embedding_table(folder: Path) -> Tensor:
    """The input embeddings [R, D] of a Hugging Face model folder, R its rows, padding included.

    Only this table is read where the weights are safetensors and its name is one of EMBEDDING_NAMES; otherwise the
    model is loaded whole.

    Raises:
        UserError: the folder is missing, or holds no model with input embeddings.
    """
    if not (folder / "config.json").is_file():
        raise UserError(f"--model {folder}: there is no config.json; pass a Hugging Face model folder")
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        files = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
    elif single.is_file():
        with _opened(single) as weights:
            files = dict.fromkeys(weights.keys(), single.name)
    else:
        files = {}
    for ending in EMBEDDING_NAMES:
        found = [name for name in files if name == ending or name.endswith("." + ending)]
        if found:
            name = min(found, key=len)  # the shortest one: the text decoder's, not that of a nested encoder
            with _opened(folder / files[name]) as weights:
                return weights.get_tensor(name)
    return _load_whole_model(folder)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="pt") as weights:
            yield weights
    except (SafetensorError, OSError) as error:
        raise UserError(f"--model: {path} is damaged or incomplete ({error}); copy it again") from error


def _load_whole_model(folder: Path) -> Tensor:
    from transformers import AutoModel

    try:
        model = AutoModel.from_pretrained(folder)
        table = model.get_input_embeddings()
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"--model {folder}: no input embeddings can be read ({reason}); pass a language model"
        ) from error
    weight = getattr(table, "weight", None)
    if weight is None or weight.ndim != 2:
        raise UserError(f"--model {folder}: the model has no table of input embeddings; pass a language model")
    return weight.detach()

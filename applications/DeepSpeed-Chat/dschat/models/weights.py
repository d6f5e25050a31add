"""Files of weights: whether they are whole, and reading them into a model that they fit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import PretrainedConfig, PreTrainedModel

from dschat.errors import UserError

INDEX, SINGLE = "model.safetensors.index.json", "model.safetensors"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
SHOWN_WEIGHTS = 3
TORCH_READER = "PytorchStreamReader"
"""What torch calls itself in complaints about a damaged file."""


def check_weights(flag: str, path: str) -> None:
    """Raise UserError if a local folder's files of weights are missing, cut off or incomplete; only headers are read.

    Args:
        flag: the flag that named the model.
        path: a model's name, which is not checked, or its folder.
    """
    if Path(path).is_dir():
        weight_names(flag, Path(path))


def weight_names(flag: str, folder: Path) -> set[str] | None:
    """Names of a folder's weights, None where they are stored as a pickle, which is not looked into.

    Raises:
        UserError: a file is missing, cut off, or no file of weights.
    """
    if (folder / INDEX).is_file():
        try:
            files = set(json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"--{flag} {folder}: {INDEX} is damaged; copy the folder again") from error
    elif (folder / SINGLE).is_file():
        files = {SINGLE}
    elif any((folder / name).is_file() for name in PICKLES):
        return None
    else:
        raise UserError(
            f"--{flag} {folder}: the folder holds no weights (no {SINGLE}); copy them there, or pass a folder that "
            "step 1 or 2 wrote"
        )
    return set().union(*(_names_in(flag, folder / name) for name in sorted(files)))


def _names_in(flag: str, file: Path) -> set[str]:
    try:
        with safe_open(str(file), framework="pt") as weights:
            return set(weights.keys())
    except FileNotFoundError as error:
        raise UserError(
            f"--{flag} {file.parent}: {file.name} is missing, which {INDEX} names; copy it there"
        ) from error
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"--{flag} {file.parent}: {file.name} is damaged or incomplete ({error}); copy it again"
        ) from error


def read_model(
    kind: Any, path: str, *, what: str, config: PretrainedConfig, options: Mapping[str, Any]
) -> tuple[PreTrainedModel, set[str]]:
    """A model with the weights of a folder or hub name.

    Args:
        kind: the Auto class that builds it.
        path: model name or folder.
        what: what it is to be, for messages.
        config: its configuration.
        options: more arguments of `from_pretrained`.
    Returns:
        the model, and the names of its weights that the files do not hold.
    Raises:
        UserError: files that are missing, damaged, of other shapes than the configuration says, or that hold more than
            weights.
    """
    problem = f"{path} cannot be loaded as a {what}"
    try:
        # shapes that do not fit are told below, by name
        model, report = kind.from_pretrained(
            path, config=config, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except UnpicklingError as error:
        raise UserError(
            f"{problem}: its pickled weights hold more than tensors or are damaged, and could run programs, so they "
            "were not read; pass a folder with model.safetensors"
        ) from error
    except (OSError, ValueError, TypeError, SafetensorError, EOFError) as error:
        raise UserError(f"{problem}: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        if TORCH_READER not in str(error):
            raise
        raise UserError(f"{problem}: its file of weights is damaged or incomplete; copy it again") from error
    if report["mismatched_keys"]:
        name, stored, expected = sorted(report["mismatched_keys"])[0]
        raise UserError(
            f"{problem}: the weight {name} has shape {list(stored)}, but config.json makes it {list(expected)}; "
            "weights and config.json must be of one model"
        )
    return model, set(report["missing_keys"])


def listed(names: set[str]) -> str:
    """The first few of some weights, for a message."""
    shown = sorted(names)
    return ", ".join(shown[:SHOWN_WEIGHTS]) + (f" and {len(shown) - SHOWN_WEIGHTS} more" * (len(shown) > SHOWN_WEIGHTS))

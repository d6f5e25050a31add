"""Model folders in the Hugging Face layout, written aside and renamed, so that no half folder is ever seen."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dschat.models.lora import ADAPTER_FOLDER, save_weights
from dschat.runtime.distributed import barrier, is_main_process, whole_state_dict


def export_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    read: Callable[[nn.Module], dict[str, Tensor] | None] = whole_state_dict,
) -> None:
    """Write a model as a Hugging Face folder (safetensors, config, tokenizer); all ranks must call it together.

    Args:
        model: the Hugging Face model to save; its weights may be partitioned by ZeRO-3, and it may have a LoRA adapter,
            which is added to the saved weights and stands beside them in `folder`/adapter.
        tokenizer: saved beside it, with its special tokens and chat template.
        folder: replaced if it exists.
        read: gives all weights on rank 0, by their names in `model`; all ranks call it together.
    """
    weights = read(model)
    if is_main_process():
        folder.parent.mkdir(parents=True, exist_ok=True)
        aside = folder.parent / f".tmp-{folder.name}-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)
        save_weights(model, weights, aside)
        for part in (aside, aside / ADAPTER_FOLDER):
            if part.is_dir():
                tokenizer.save_pretrained(part)
        replace_folder(aside, folder)
    barrier()


def replace_folder(aside: Path, folder: Path) -> None:
    """Put `aside` in the place of `folder`; a reader sees the old or the new one, or for an instant none."""
    retired = folder.parent / f".tmp-old-{folder.name}-{os.getpid()}"
    if folder.is_symlink():
        folder.unlink()
    elif folder.exists():
        folder.rename(retired)
    aside.rename(folder)
    shutil.rmtree(retired, ignore_errors=True)


def link(target: Path, place: Path) -> None:
    """Make `place` a relative symbolic link to `target`, whatever stood there; all ranks call it together."""
    if is_main_process():
        _link(target, place)
    barrier()


def link_files(source: Path, folder: Path) -> None:
    """Link all of the model folder `source` into `folder`, so that `folder` loads as that model."""
    if is_main_process():
        for entry in source.iterdir():
            if entry.is_file() or entry.name == ADAPTER_FOLDER:
                _link(entry, folder / entry.name)
    barrier()


def _link(target: Path, place: Path) -> None:
    aside = place.parent / f".tmp-link-{place.name}-{os.getpid()}"
    aside.unlink(missing_ok=True)
    aside.symlink_to(os.path.relpath(target, place.parent))
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    aside.replace(place)

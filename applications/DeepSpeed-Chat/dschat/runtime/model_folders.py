"""Model folders in the Hugging Face layout, written aside and renamed, so that no half folder is ever seen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dschat.models.lora import ADAPTER_FOLDER, save_weights
from dschat.runtime import files
from dschat.runtime.distributed import barrier, is_main_process, whole_state_dict
from dschat.runtime.faults import fault_point


def save_model(
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
        read: gives all weights, whole, such as [V, D], on rank 0, by name; all ranks call it together.
    """
    weights = read(model)
    if is_main_process():
        assert weights is not None
        aside = files.aside(folder)
        with files.explained(f"the model {folder.name}", aside):
            folder.parent.mkdir(parents=True, exist_ok=True)
            files.remove(aside)
            fault_point("model.write")
            save_weights(model, weights, aside)
            for part in (aside, aside / ADAPTER_FOLDER):
                if part.is_dir():
                    tokenizer.save_pretrained(part)
            fault_point("model.sync")
            for entry in aside.rglob("*"):
                if entry.is_file():
                    files.sync_file(entry)
            files.replace_folder(folder)
    barrier()


def link(target: Path, place: Path) -> None:
    """Make `place` a relative symbolic link to `target`, whatever stood there; all ranks call it together."""
    if is_main_process():
        files.link(target, place)
    barrier()


def link_files(source: Path, folder: Path) -> None:
    """Link all of the model folder `source` into `folder`, so that `folder` loads as that model."""
    if is_main_process():
        for entry in source.iterdir():
            if entry.is_file() or entry.name == ADAPTER_FOLDER:
                files.link(entry, folder / entry.name)
    barrier()

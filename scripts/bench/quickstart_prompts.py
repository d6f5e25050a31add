"""The training prompts of a finished quickstart, in the batches in which step 3 of the quickstart sees them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from dschat.config.steps import PPOConfig
from dschat.errors import UserError

if TYPE_CHECKING:
    from dschat.data.batches import PromptBatch


def check_quickstart(folder: Path) -> None:
    """Raise UserError where a folder lacks the models that the quickstart leaves."""
    if not all((folder / name / "config.json").is_file() for name in ("sft", "reward")):
        raise UserError(
            f"--models {folder}: there is no sft/ and reward/ in it; pass a folder that scripts/quickstart.sh wrote"
        )


def quickstart_batches(folder: Path, config: PPOConfig) -> Iterator[PromptBatch]:
    """Left-padded batches of --per_device_generation_batch_size prompts, in the order of the first epoch, endlessly.

    Args:
        folder: what the quickstart wrote; its cached data is used where the settings are the same.
        config: settings of step 3: data, seed, batch and the longest prompt.
    """
    from dschat.data.collate import collate_prompts
    from dschat.data.order import epoch_order, wrapped_rows
    from dschat.data.stage_data import build_stage_data
    from dschat.data.stages import PPO
    from dschat.models.checked import check_model
    from dschat.preparation import data_source

    checked = check_model("models", str(folder / "sft"))
    seed, size = config.runtime.seed, config.rollout.per_device_generation_batch_size
    rows = build_stage_data(
        data_source(config.data, folder, seed=seed),
        stage=PPO,
        tokenizer=checked.tokenizer,
        max_length=config.rollout.max_prompt_seq_len,
    ).train
    order = epoch_order(len(rows), seed=seed, epoch=0)
    for step in count():
        numbers = wrapped_rows(order, step=step, global_batch=size, rank=0, world=1)
        yield collate_prompts([rows[number] for number in numbers], pad_token_id=checked.pad_token_id)

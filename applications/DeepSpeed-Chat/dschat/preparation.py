"""What every step does before it trains: ranks, log, tokenizer, data, and the report of a dry run."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from dschat.config.sections import DataConfig, OutputConfig, RuntimeConfig, SFTDataConfig
from dschat.data.phases import DataSource, Phase, PhaseData, build_phase
from dschat.errors import UserError
from dschat.models.causal_lm import check_context
from dschat.models.tokenizer import SENTINEL_NONE, check_model_path, load_config, load_tokenizer
from dschat.runtime.distributed import initialize, main_process_first
from dschat.runtime.logging import set_up_logging

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Prepared:
    """What a step starts from."""

    device: torch.device
    output: Path
    model_path: str
    """Checked name or folder of the model that brought the tokenizer."""
    tokenizer: PreTrainedTokenizerBase
    data: PhaseData


def prepare(
    *,
    phase: Phase,
    model_flag: str,
    model_path: str,
    max_length: int,
    row_length: int,
    length_flags: str,
    data: DataConfig,
    runtime: RuntimeConfig,
    output: OutputConfig,
    sft_data: SFTDataConfig | None = None,
) -> Prepared:
    """Check the model folder, join the ranks, and tokenise this step's share of the data; no weights are read.

    Args:
        phase: which share and form of the data.
        model_flag, model_path: the flag that names the model, and its value.
        max_length: limit of tokens for the data: the whole row, or the prompt in step 3.
        row_length: tokens of the longest row that the model will see.
        length_flags: the flags that decide `row_length`, for messages.
        data, runtime, output, sft_data: sections of the settings.
    """
    set_up_logging()
    checked = check_model_path(model_flag, model_path)
    config = load_config(model_flag, checked, trust_remote_code=runtime.trust_remote_code)
    check_context(config, row_length, length_flags)
    tokenizer = load_tokenizer(
        model_flag,
        checked,
        end_of_conversation_token=data.end_of_conversation_token,
        trust_remote_code=runtime.trust_remote_code,
    )
    device = initialize(runtime.local_rank)
    folder = output_folder(output)
    source = data_source(data, folder, seed=runtime.seed, sft_data=sft_data)
    with main_process_first():
        phase_data = build_phase(source, phase=phase, tokenizer=tokenizer, max_length=max_length)
    logger.info("%s", phase_data.report.summary())
    return Prepared(device, folder, checked, tokenizer, phase_data)


def output_folder(output: OutputConfig) -> Path:
    """The folder that a run writes to, made if it is not there; UserError where it cannot be or holds another run."""
    folder = Path(str(output.output_dir)).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {output.output_dir} cannot be made ({error}); choose another folder") from error
    if (folder / METRICS_NAME).exists() and not output.overwrite_output_dir:
        raise UserError(
            f"--output_dir {output.output_dir} already holds a run ({METRICS_NAME}); choose another folder or pass "
            "--overwrite_output_dir"
        )
    return folder


def tensorboard_folder(output: OutputConfig, folder: Path) -> Path | None:
    """Where TensorBoard files go, None if they are not wanted."""
    if not output.enable_tensorboard:
        return None
    return Path(output.tensorboard_path) if output.tensorboard_path else folder / "tensorboard"


def data_source(data: DataConfig, folder: Path, *, seed: int, sft_data: SFTDataConfig | None = None) -> DataSource:
    """The data settings as the data package takes them; caches lie in the run's folder unless told otherwise."""
    token = data.end_of_conversation_token
    return DataSource(
        data_path=tuple(data.data_path),
        data_format=data.data_format,
        data_split=data.data_split,
        split_by=data.split_by,
        apps_prompt=data.apps_prompt,
        sft_only_data_path=tuple(sft_data.sft_only_data_path) if sft_data else (),
        seed=seed,
        cache_dir=Path(data.data_output_path) if data.data_output_path else folder / "data_cache",
        end_of_conversation=None if token == SENTINEL_NONE else token,
        loss_on_prompt=sft_data.loss_on_prompt if sft_data else False,
    )


def steps_per_epoch(rows: int, rows_per_step: int) -> int:
    """Steps that one pass over the data takes; the last may be short."""
    return math.ceil(rows / rows_per_step)

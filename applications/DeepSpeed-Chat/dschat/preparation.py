"""What every step does before it trains: ranks, log, tokenizer, data, and where a dry run works."""

from __future__ import annotations

import dataclasses
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from dschat.checksums import folder_key
from dschat.config.data import DataConfig
from dschat.config.decisive import decisive_settings
from dschat.config.runtime import OutputConfig, RuntimeConfig, SavingConfig
from dschat.config.steps import PPOConfig, RewardTrainingConfig, SFTConfig
from dschat.data.stage_data import DataSource, StageData, build_stage_data
from dschat.data.stages import DataStage
from dschat.errors import UserError
from dschat.models.checked import CheckedModel, check_model
from dschat.models.tokenizer import SENTINEL_NONE
from dschat.runtime import files
from dschat.runtime.distributed import decided_by_main, initialize, is_main_process, main_process_first
from dschat.runtime.lock import RunLock
from dschat.runtime.memory import MemoryMeter
from dschat.runtime.resume import AUTO, NEVER, check_same_run, find_state
from dschat.runtime.run import METRICS_NAME, Continuation
from dschat.runtime.stopping import follow_launcher
from dschat.runtime.store import STATES_FOLDER, StateStore

logger = logging.getLogger(__name__)


C = TypeVar("C", SFTConfig, RewardTrainingConfig, PPOConfig)
StepConfig = SFTConfig | RewardTrainingConfig | PPOConfig


@dataclass(frozen=True)
class Prepared:
    """What a step starts from."""

    device: torch.device
    output: Path
    """The folder that the run works in."""
    model: CheckedModel
    """The checkpoint whose tokenizer made the data."""
    data: StageData

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Of all models of the step."""
        return self.model.tokenizer


def check_named_model(config: StepConfig, flag: str, path: str) -> CheckedModel:
    """`check_model` with the settings of a step."""
    return check_model(
        flag,
        path,
        end_of_conversation_token=config.data.end_of_conversation_token,
        trust_remote_code=config.runtime.trust_remote_code,
    )


def join_ranks(runtime: RuntimeConfig) -> torch.device:
    """Join the other ranks, and return this rank's device."""
    device = initialize(runtime.local_rank, timeout_seconds=runtime.dist_timeout)
    if runtime.local_rank >= 0:
        follow_launcher()
    return device


def prepare(
    config: StepConfig,
    model: CheckedModel,
    device: torch.device,
    stage: DataStage,
    *,
    max_length: int,
) -> Prepared:
    """Tokenise a stage's share of the data, all ranks together; no weights are read.

    Args:
        config: settings of the step.
        model: brings the tokenizer.
        device: as `join_ranks` returned it.
        stage: which share and form of the data.
        max_length: most tokens of a row as `stage.length_flag` limits it.
    """
    runtime = config.runtime
    check_holds_no_run(config.output, config.saving.resume)
    folder = work_folder(config.output, dry_run=runtime.dry_run)
    source = data_source(config.data, folder, seed=runtime.seed)
    with main_process_first():
        data = build_stage_data(source, stage=stage, tokenizer=model.tokenizer, max_length=max_length)
    logger.info("%s", data.report.summary())
    return Prepared(device, folder, model, data)


@contextmanager
def claimed(output: OutputConfig, *, dry_run: bool) -> Iterator[None]:
    """Within the body no other run writes to the folder that this one works in; UserError if one does already.

    In a dry run the folder is a temporary one, which is deleted at the end.
    """
    if not is_main_process():
        yield
        return
    folder = work_folder(output, dry_run=dry_run)
    with RunLock(folder):
        try:
            yield
        finally:
            if dry_run:
                shutil.rmtree(folder, ignore_errors=True)


def output_path(output: OutputConfig) -> Path:
    """--output_dir, absolute."""
    return Path(str(output.output_dir)).expanduser().absolute()


def work_folder(output: OutputConfig, *, dry_run: bool) -> Path:
    """The folder that a run writes to, made if it is not there; UserError where it cannot be.

    Args:
        output: names it.
        dry_run: take a temporary one on the same disk instead: in the folder if that is there, else where it would be.
    """
    folder = output_path(output)
    if dry_run:
        place = next(known for known in (folder, *folder.parents) if known.exists())
        folder = place / f"{files.ASIDE}dry-run-{folder.name}"
        if not is_main_process():  # which may have deleted it already because of a mistake
            return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--output_dir {output.output_dir} cannot be made ({error}); choose another folder") from error
    return folder


def check_holds_no_run(output: OutputConfig, resume: str) -> None:
    """UserError where the output folder holds a run that this one does not go on from."""
    folder = output_path(output)
    goes_on = resume != NEVER and (resume == AUTO or Path(resume).expanduser().absolute().is_relative_to(folder))
    held = [name for name in (METRICS_NAME, STATES_FOLDER) if (folder / name).exists()]
    if held and not output.overwrite_output_dir and not goes_on:
        raise UserError(
            f"--output_dir {output.output_dir} already holds a run ({held[0]}); pass --resume auto to go on with it, "
            "--overwrite_output_dir to start anew, or another folder"
        )


def one_step(config: C) -> C:
    """The settings of what a dry run does: one step, every file of which goes to its temporary folder."""
    return dataclasses.replace(
        config,
        schedule=dataclasses.replace(config.schedule, max_steps=1),
        output=dataclasses.replace(config.output, tensorboard_path=None),
    )


def describe_rehearsal(memory: MemoryMeter, prepared: Prepared, what: str = "") -> str:
    """One sentence at the end of a dry run.

    Args:
        memory: measured the step.
        prepared: where it was made.
        what: more about the step, after a space.
    """
    kind = "resident memory" if prepared.device.type == "cpu" else "device memory"
    return (
        f"dry run: one step{what} was made, saved and deleted; at its peak it took "
        f"{memory.peaks['step'] / files.MIB:,.1f} MiB of {kind} beyond the loaded models"
    )


def continuation(config: StepConfig, prepared: Prepared, models: Mapping[str, CheckedModel]) -> Continuation:
    """From which state the run goes on, checked, and where its own states go; all ranks call it together.

    A dry run checks the state, but starts from the beginning.

    Args:
        config: settings of the step.
        prepared: folder and data.
        models: every checkpoint that the run loads, by flag.
    Raises:
        UserError: there is no such state, or it is of another run.
    """
    saving: SavingConfig = config.saving
    stage = prepared.data.report.stage.name
    settings = decisive_settings(config) | {"training rows (data, tokenizer, lengths)": prepared.data.key}
    for flag, model in models.items():
        if Path(model.path).is_dir():
            settings.pop(f"--{flag}", None)
            settings[f"content of --{flag}"] = decided_by_main(partial(folder_key, Path(model.path)))
    point = find_state(output_path(config.output), saving.resume)
    if point is not None:
        check_same_run(point, stage=stage, settings=settings, override=saving.resume_override)
        if config.runtime.dry_run:
            logger.info("the run would go on after step %d, from %s", point.manifest.step, point.folder)
            point = None
    states = prepared.output / STATES_FOLDER
    store = StateStore(states, stage, settings, limit=saving.save_total_limit, on_full_disk=saving.on_full_disk)
    return Continuation(prepared.output, saving, store, point, prepared.device)


def tensorboard_folder(output: OutputConfig, folder: Path) -> Path | None:
    """Where TensorBoard files go, None if they are not wanted."""
    if not output.enable_tensorboard:
        return None
    return Path(output.tensorboard_path) if output.tensorboard_path else folder / "tensorboard"


def data_source(data: DataConfig, folder: Path, *, seed: int) -> DataSource:
    """The data settings as the data package takes them; caches lie in the run's folder unless told otherwise."""
    token = data.end_of_conversation_token
    return DataSource(
        data_path=tuple(data.data_path),
        data_format=data.data_format,
        data_split=data.data_split,
        split_by=data.split_by,
        apps_prompt=data.apps_prompt,
        seed=seed,
        cache_dir=cache_folder(data, folder),
        end_of_conversation=None if token == SENTINEL_NONE else token,
        skip_bad_rows=data.skip_bad_rows,
    )


def cache_folder(data: DataConfig, folder: Path) -> Path:
    """Where tokenised data is kept, in the run's folder unless told otherwise."""
    return Path(data.data_output_path) if data.data_output_path else folder / "data_cache"

"""The composition root of the stages on data fixed beforehand: from settings to a trained and saved model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Generic

from dschat.config.steps import RewardTrainingConfig, SFTConfig
from dschat.data.stages import DataStage
from dschat.engines import Loader, Role, check_deepspeed_file, estimated, trained
from dschat.loop import TrainingLoop
from dschat.models.checked import CheckedModel
from dschat.models.lora import check_adapter
from dschat.offline.loop import B, Batches, Objective, OfflineSteps
from dschat.preparation import (
    Prepared,
    check_named_model,
    claimed,
    continuation,
    describe_rehearsal,
    join_ranks,
    one_step,
    prepare,
    tensorboard_folder,
)
from dschat.runtime.deepspeed_config import Optimization, Placement, training_stage, usable_dtype
from dschat.runtime.distributed import world_size
from dschat.runtime.logging import set_up_logging
from dschat.runtime.memory import MemoryMeter
from dschat.runtime.random_state import seed_generators

logger = logging.getLogger(__name__)

MODEL_FLAG = "model_name_or_path"

OfflineConfig = SFTConfig | RewardTrainingConfig


@dataclass(frozen=True)
class OfflineStage(Generic[B]):
    """What makes a stage on data fixed beforehand: everything else is the same for all of them."""

    data: DataStage
    """Which rows, in which form."""
    objective: Callable[[CheckedModel], Objective[B]]
    """What is learned, given the model's checkpoint."""
    load: Loader
    """Which kind of model learns it."""
    title: str
    """Of the progress bar."""
    shown_metrics: tuple[str, ...]
    """Beside it."""


def run_offline(config: OfflineConfig, stage: OfflineStage[B]) -> None:
    """Train one model on rows, from checked settings to a saved folder; in a dry run one step of it, with a report."""
    with claimed(config.output, dry_run=config.runtime.dry_run):
        prepared = prepare_offline(config, stage)
        _train(config, prepared, stage)


def prepare_offline(config: OfflineConfig, stage: OfflineStage[B]) -> Prepared:
    """Check the model folder and DeepSpeed's settings, and tokenise the data; no weights are read.

    Args:
        config: settings of the step.
        stage: which data, and which kind of model.
    """
    set_up_logging()
    model = check_named_model(config, MODEL_FLAG, config.training.model_name_or_path)
    model.check_rows(config.training.max_seq_len, stage.data.length_flag)
    device = join_ranks(config.runtime)
    check_deepspeed_file(config.runtime, lambda: [_role(config, model, stage.load, total_updates=1)])
    return prepare(config, model, device, stage.data, max_length=config.training.max_seq_len)


def _train(config: OfflineConfig, prepared: Prepared, stage: OfflineStage[B]) -> None:
    check_adapter(prepared.model.config, config.adapter)
    batches = _batches(config, prepared)
    role = _role(config, prepared.model, stage.load, total_updates=batches.total_steps)
    _report_plan(prepared, batches)
    goes_on = continuation(config, prepared, {MODEL_FLAG: prepared.model})
    if config.runtime.dry_run:
        logger.info("estimated: %s", estimated(role))
        config = _rehearsal(config)
        batches = _batches(config, prepared)
        role = _role(config, prepared.model, stage.load, total_updates=batches.total_steps)
    seed_generators(config.runtime.seed)
    memory = MemoryMeter(prepared.device)
    engine = trained(role, config.runtime, memory)
    tensorboard = tensorboard_folder(config.output, prepared.output)
    loop = TrainingLoop({"model": engine}, config.guards, goes_on, tensorboard=tensorboard)
    steps = OfflineSteps(
        engine,
        stage.objective(prepared.model),
        batches,
        prepared,
        loop.broken,
        title=stage.title,
        shown_metrics=stage.shown_metrics,
    )
    with memory.during("step"):
        loop.run(steps)
    if config.runtime.dry_run:
        logger.info("measured: %s", memory.describe("model", engine))
        logger.info("%s", describe_rehearsal(memory, prepared))


def _batches(config: OfflineConfig, prepared: Prepared) -> Batches:
    return Batches(config.training, config.schedule, config.runtime.seed, rows=len(prepared.data.train))


def _role(config: OfflineConfig, model: CheckedModel, load: Loader, *, total_updates: int) -> Role:
    """The one model of the stage."""
    training, adapter = config.training, config.adapter
    dtype = usable_dtype(config.runtime)
    return Role(
        "model",
        load,
        model,
        Placement(training_stage(training.zero_stage, dtype), dtype, config.runtime.offload),
        Optimization(
            learning_rate=training.learning_rate,
            weight_decay=training.weight_decay,
            micro_batch_size=training.per_device_train_batch_size,
            schedule=config.schedule,
            total_updates=total_updates,
            lora_learning_rate=adapter.learning_rate if adapter else None,
        ),
        dropout=training.dropout,
        gradient_checkpointing=training.gradient_checkpointing,
        adapter=adapter,
    )


def _rehearsal(config: OfflineConfig) -> OfflineConfig:
    """The settings of a dry run: one step, and one batch of each evaluation."""
    return replace(one_step(config), training=replace(config.training, eval_iters=1))


def _report_plan(prepared: Prepared, batches: Batches) -> None:
    """Log the batch arithmetic."""
    logger.info(
        "%s training rows, %s evaluation rows; %d rows per optimizer step on %d device(s), %d optimizer steps in all",
        f"{batches.rows:,}", f"{len(prepared.data.evaluation):,}", batches.rows_per_step, world_size(),
        batches.total_steps,
    )  # fmt: skip

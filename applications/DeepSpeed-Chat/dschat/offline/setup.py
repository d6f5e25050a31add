"""From the settings of step 1 or 2 to a running loop: engine, plan, dry run, saving."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from dschat.config.steps import RewardTrainingConfig, SFTConfig
from dschat.data.stages import DataStage
from dschat.models.lora import check_adapter
from dschat.offline.loop import LoopSettings, Objective, SupervisedLoop
from dschat.preparation import (
    Prepared,
    check_named_model,
    continuation,
    describe_rehearsal,
    join_ranks,
    one_step,
    prepare,
    tensorboard_folder,
)
from dschat.runtime.deepspeed_config import (
    Optimization,
    Placement,
    load_partitioned,
    training_engine,
    training_stage,
    usable_dtype,
)
from dschat.runtime.deepspeed_overrides import (
    Trained,
    TrainingFlags,
    blaming,
    check_overrides,
    overridden_settings,
    overrides_of,
)
from dschat.runtime.distributed import world_size
from dschat.runtime.guards import BrokenSteps
from dschat.runtime.logging import set_up_logging
from dschat.runtime.memory import MemoryMeter, estimate_adapted
from dschat.runtime.model_folders import export_model, link_files
from dschat.runtime.random_state import seed_generators
from dschat.runtime.run import ResumableRun
from dschat.runtime.state import TrainingState

logger = logging.getLogger(__name__)

MODEL_FLAG = "model_name_or_path"
FLAGS = TrainingFlags(
    learning_rate="--learning_rate",
    weight_decay="--weight_decay",
    micro_batch_size="--per_device_train_batch_size",
    zero_stage="--zero_stage",
    gradient_checkpointing="--gradient_checkpointing",
)


SupervisedStepConfig = SFTConfig | RewardTrainingConfig


def prepare_supervised(config: SupervisedStepConfig, stage: DataStage) -> Prepared:
    """Check the model folder and tokenise the data of step 1 or 2.

    Args:
        config: settings of the step.
        stage: which share and form of the data.
    """
    set_up_logging()
    model = check_named_model(config, MODEL_FLAG, config.training.model_name_or_path)
    model.check_rows(config.training.max_seq_len, "--max_seq_len")
    device = join_ranks(config.runtime)
    check_overrides(config.runtime, lambda: {"model": _trained(config, total_updates=1)})
    return prepare(config, model, device, stage, max_length=config.training.max_seq_len)


def train_supervised(
    config: SupervisedStepConfig,
    prepared: Prepared,
    objective: Objective,
    load: Callable[[], nn.Module],
    *,
    hf_model: Callable[[nn.Module], PreTrainedModel],
    title: str,
    shown: tuple[str, ...],
) -> None:
    """Train step 1 or 2; in a dry run one step of it, with a report.

    After every epoch the model stands in `<output>/step_<n>`, n counting optimizer steps, and is linked from
    `<output>` itself.

    Args:
        config: settings of the step.
        prepared: tokenizer, data, folders.
        objective: what is learned.
        load: reads the model's weights.
        hf_model: the Hugging Face model inside what `load` returned.
        title: name of the progress bar.
        shown: metrics beside it.
    """
    settings = _loop_settings(config, prepared, title, shown)
    shape = prepared.model.config
    check_adapter(shape, config.adapter)
    trained = _trained(config, total_updates=settings.total_updates(len(prepared.data.train)))
    _report_plan(prepared, settings)
    goes_on = continuation(config, prepared, {MODEL_FLAG: prepared.model})
    if config.runtime.dry_run:
        estimated = estimate_adapted("model", shape, trained.placement, config.adapter, world_size=world_size())
        logger.info("estimated: %s", estimated)
        config = _rehearsal(config)
        settings = _loop_settings(config, prepared, title, shown)
        trained = _trained(config, total_updates=settings.total_updates(len(prepared.data.train)))
    seed_generators(config.runtime.seed)
    memory = MemoryMeter(prepared.device)
    with memory.during("model"):
        engine = _build_engine(config, load, trained)

    def save(step: int) -> None:
        folder = prepared.output / f"step_{step}"
        export_model(hf_model(engine.module), prepared.tokenizer, folder)
        link_files(folder, prepared.output)

    engines = {"model": engine}
    state = TrainingState(engines, device=prepared.device)
    broken = BrokenSteps(config.guards, engines, goes_on.store.last_good)
    state.register("broken_steps", broken)
    loop = SupervisedLoop(
        engine,
        objective,
        settings,
        train=prepared.data.train,
        evaluation=prepared.data.evaluation,
        device=prepared.device,
        broken=broken,
    )
    with memory.during("step"):
        loop.run(save, ResumableRun(goes_on, state))
    if config.runtime.dry_run:
        logger.info("measured: %s", memory.describe("model", engine))
        logger.info("%s", describe_rehearsal(memory, prepared))


def _loop_settings(
    config: SupervisedStepConfig, prepared: Prepared, title: str, shown: tuple[str, ...]
) -> LoopSettings:
    return LoopSettings(
        training=config.training,
        schedule=config.schedule,
        seed=config.runtime.seed,
        output=prepared.output,
        tensorboard=tensorboard_folder(config.output, prepared.output),
        title=title,
        shown_metrics=shown,
    )


def _rehearsal(config: SupervisedStepConfig) -> SupervisedStepConfig:
    """The settings of a dry run: one step, and one batch of each evaluation."""
    return replace(one_step(config), training=replace(config.training, eval_iters=1))


def _report_plan(prepared: Prepared, settings: LoopSettings) -> None:
    """Log the batch arithmetic."""
    rows, held_out = len(prepared.data.train), len(prepared.data.evaluation)
    logger.info(
        "%s training rows, %s evaluation rows; %d rows per optimizer step on %d device(s), %d optimizer steps in all",
        f"{rows:,}", f"{held_out:,}", settings.rows_per_step, world_size(), settings.total_updates(rows),
    )  # fmt: skip


def _trained(config: SupervisedStepConfig, *, total_updates: int) -> Trained:
    """How the model lies on the devices and is trained, as the flags say."""
    optimization = Optimization(
        learning_rate=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        micro_batch_size=config.training.per_device_train_batch_size,
        schedule=config.schedule,
        total_updates=total_updates,
        lora_learning_rate=config.adapter.learning_rate if config.adapter else None,
    )
    dtype = usable_dtype(config.runtime)
    placement = Placement(training_stage(config.training.zero_stage, dtype), dtype, config.runtime.offload)
    return Trained(placement, optimization, FLAGS)


def _build_engine(config: SupervisedStepConfig, load: Callable[[], nn.Module], trained: Trained) -> Any:
    overrides = overrides_of(config.runtime, trained)
    settings = overridden_settings(trained, overrides)
    model = load_partitioned(load, settings)
    with blaming(config.runtime, overrides):
        return training_engine(model, settings, trained.optimization)

"""From the settings of step 1 or 2 to a running loop: engine, plan, dry run, saving."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from dschat.config.steps import RewardTrainingConfig, SFTConfig
from dschat.models.tokenizer import load_config
from dschat.preparation import Prepared, tensorboard_folder
from dschat.runtime.checkpoint import export_model, link_files
from dschat.runtime.deepspeed_config import (
    Optimization,
    Placement,
    load_partitioned,
    training_engine,
    training_settings,
    training_stage,
    usable_dtype,
)
from dschat.runtime.distributed import world_size
from dschat.runtime.memory import count_parameters, estimate
from dschat.supervised.loop import LoopSettings, Objective, SupervisedLoop

logger = logging.getLogger(__name__)


def train_supervised(
    config: SFTConfig | RewardTrainingConfig,
    prepared: Prepared,
    objective: Objective,
    load: Callable[[], nn.Module],
    *,
    hf_model: Callable[[nn.Module], PreTrainedModel],
    title: str,
    shown: tuple[str, ...],
) -> None:
    """Train step 1 or 2, or only report on it in a dry run.

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
    settings = LoopSettings(
        training=config.training,
        schedule=config.schedule,
        seed=config.runtime.seed,
        output=prepared.output,
        tensorboard=tensorboard_folder(config.output, prepared.output),
        title=title,
        shown_metrics=shown,
    )
    rows = len(prepared.data.train)
    total = settings.total_updates(rows)
    dtype = usable_dtype(config.runtime)
    placement = Placement(training_stage(config.training.zero_stage, dtype), dtype, config.runtime.offload)
    logger.info(
        "%s training rows, %s evaluation rows; %d rows per optimizer step on %d device(s), %d optimizer steps in all",
        f"{rows:,}", f"{len(prepared.data.evaluation):,}", settings.rows_per_step, world_size(), total,
    )  # fmt: skip
    if config.runtime.dry_run:
        shape = load_config(
            "model_name_or_path", prepared.model_path, trust_remote_code=config.runtime.trust_remote_code
        )
        logger.info("%s", estimate("model", count_parameters(shape), placement, trained=True, world_size=world_size()))
        return
    torch.manual_seed(config.runtime.seed)
    optimization = Optimization(
        learning_rate=config.training.learning_rate,
        weight_decay=config.training.weight_decay,
        micro_batch_size=config.training.per_device_train_batch_size,
        schedule=config.schedule,
        total_updates=total,
    )
    deepspeed_settings = training_settings(placement, optimization, overrides=config.runtime.deepspeed_config)
    engine = training_engine(load_partitioned(load, deepspeed_settings), deepspeed_settings, optimization)

    def save(step: int) -> None:
        folder = prepared.output / f"step_{step}"
        export_model(hf_model(engine.module), prepared.tokenizer, folder)
        link_files(folder, prepared.output)

    SupervisedLoop(
        engine,
        objective,
        settings,
        train=prepared.data.train,
        evaluation=prepared.data.evaluation,
        device=prepared.device,
    ).run(save)

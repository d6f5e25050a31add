"""The one way onto DeepSpeed: what a model of a stage is, and how it becomes a trained engine or a frozen model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from dschat.config.lora import AdapterSettings
from dschat.config.runtime import RuntimeConfig
from dschat.models.causal_lm import enable_gradient_checkpointing
from dschat.models.checked import CheckedModel
from dschat.models.lora import FrozenModel, WithoutAdapter, add_adapter
from dschat.models.reward_model import hugging_face_model
from dschat.runtime.deepspeed_config import (
    TORCH_DTYPES,
    Optimization,
    Placement,
    frozen_model,
    inference_settings,
    load_partitioned,
    training_engine,
    training_settings,
)
from dschat.runtime.deepspeed_entries import merged
from dschat.runtime.deepspeed_overrides import Trained, TrainingFlags, blaming, check_overrides, overrides_of
from dschat.runtime.distributed import world_size
from dschat.runtime.memory import MemoryMeter, count_parameters, estimate, estimate_adapted
from dschat.runtime.training_engine import TrainingEngine

logger = logging.getLogger(__name__)


class Loader(Protocol):
    """Reads a checkpoint's weights: `load_causal_lm`, or `load_token_scorer` with its head decided."""

    def __call__(
        self, checked: CheckedModel, *, dtype: torch.dtype, dropout: float | None, four_bit: bool
    ) -> nn.Module:
        """The model, its linear layers in 4 bits where that is asked for."""
        ...


@dataclass(frozen=True)
class Role:
    """One model of a stage: all that is needed to load it and to put it on the devices."""

    name: str
    """In the log and in reports of memory."""
    load: Loader
    """Which kind of model it is."""
    checkpoint: CheckedModel
    """What it starts from."""
    placement: Placement
    """ZeRO stage, precision, offload."""
    optimization: Optimization | None = None
    """Optimizer and learning rates, None for a frozen model."""
    dropout: float | None = None
    """Overrides every dropout rate, None to keep them."""
    gradient_checkpointing: bool = False
    flags: TrainingFlags = TrainingFlags()
    """What sets all this for a trained model, for messages."""
    adapter: AdapterSettings | None = None
    """LoRA of the trained model. A frozen one is that model without it, where nothing else is trained."""

    @property
    def is_inside_its_twin(self) -> bool:
        """Whether a frozen model needs no weights of its own, because the trained one holds them unchanged."""
        return self.optimization is None and self.adapter is not None and self.adapter.alone


def check_deepspeed_file(runtime: RuntimeConfig, roles: Callable[[], Sequence[Role]]) -> None:
    """Check what `--deepspeed_config` says of the models that a stage trains, and log it; see `check_overrides`.

    Args:
        runtime: names the file.
        roles: gives the models of the stage; not called where there is no file.
    """
    check_overrides(runtime, lambda: {role.name: _described(role) for role in roles() if role.optimization is not None})


def trained(role: Role, runtime: RuntimeConfig, memory: MemoryMeter) -> TrainingEngine:
    """The engine that trains a model; all ranks call it together.

    Args:
        role: with an optimization.
        runtime: the seed of an adapter's random matrices, and what overrides DeepSpeed's settings.
        memory: learns what it takes.
    """
    assert role.optimization is not None
    logger.info("loading the %s from %s", role.name, role.checkpoint.path)
    overrides = overrides_of(runtime, _described(role))
    settings = merged(training_settings(role.placement, role.optimization), overrides)
    with memory.during(role.name):
        model = load_partitioned(partial(_load, role, role.adapter, seed=runtime.seed), settings)
        with blaming(runtime, overrides):
            return training_engine(model, settings, role.optimization)


def frozen(role: Role, runtime: RuntimeConfig, memory: MemoryMeter, *, twin: TrainingEngine) -> FrozenModel:
    """The frozen copy of a trained model, in eval mode; all ranks call it together.

    Args:
        role: without an optimization.
        runtime: as for `trained`.
        memory: learns what it takes; names the device.
        twin: the engine that trains the same checkpoint, in which it is found where nothing but an adapter changes.
    """
    if role.is_inside_its_twin:
        return WithoutAdapter(twin)
    settings = inference_settings(role.placement)
    with memory.during(role.name):
        model = load_partitioned(partial(_load, role, None, seed=runtime.seed), settings)
        return frozen_model(model, settings, memory.device)


def estimated(role: Role) -> str:
    """One line: what a model keeps on each device, worked out before anything is loaded."""
    config, size = role.checkpoint.config, world_size()
    if role.is_inside_its_twin:
        return f"{role.name}: no memory of its own, it is the trained model without its adapter"
    if role.optimization is None:
        return str(estimate(role.name, count_parameters(config), role.placement, trained=False, world_size=size))
    return str(estimate_adapted(role.name, config, role.placement, role.adapter, world_size=size))


def _described(role: Role) -> Trained:
    assert role.optimization is not None
    return Trained(role.placement, role.optimization, role.flags)


def _load(role: Role, adapter: AdapterSettings | None, *, seed: int) -> nn.Module:
    model = role.load(
        role.checkpoint,
        dtype=TORCH_DTYPES[role.placement.dtype],
        dropout=role.dropout,
        four_bit=adapter is not None and adapter.quantized,
    )
    inner = hugging_face_model(model)
    if adapter is not None:
        add_adapter(inner, adapter, seed=seed)
    if role.gradient_checkpointing:
        enable_gradient_checkpointing(inner)
    return model

"""The only builder of DeepSpeed settings, and the two ways to hand DeepSpeed a model."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dschat.config.runtime import RuntimeConfig
from dschat.config.training import ScheduleConfig
from dschat.runtime.distributed import ZERO_PARTITIONED, world_size
from dschat.runtime.training_engine import TrainingEngine

logger = logging.getLogger(__name__)

ADAM_BETAS = (0.9, 0.95)
GRADIENT_CLIPPING = 1.0
FP16_SCALE_WINDOW = 100
STEPS_NEVER = 1_000_000_000  # DeepSpeed's own progress lines; ours go to metrics.jsonl

TORCH_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclass(frozen=True)
class Placement:
    """How one model lies on the devices."""

    stage: int
    """ZeRO stage, 0 to 3."""
    dtype: str
    """fp16, bf16 or fp32, as `usable_dtype` gives it."""
    offload: bool
    """Keep optimizer states and, at stage 3, weights in host memory."""


@dataclass(frozen=True)
class Optimization:
    """Optimizer and learning-rate curve of one trained model."""

    learning_rate: float
    weight_decay: float
    micro_batch_size: int
    schedule: ScheduleConfig
    total_updates: int
    """Optimizer steps in the whole run."""
    passes: int = 1
    """Backward passes per micro-batch: 2 where a second loss is added to the gradient."""
    lora_learning_rate: float | None = None
    """Peak rate of a LoRA adapter, where the model has one."""


def usable_dtype(runtime: RuntimeConfig) -> str:
    """The asked-for precision, or bf16 with a warning where the device has no fp16."""
    from deepspeed.accelerator import get_accelerator

    if runtime.dtype == "fp16" and not get_accelerator().is_fp16_supported():
        logger.warning("this device has no fp16; training in bf16 (pass --dtype bf16 to silence this)")
        return "bf16"
    return runtime.dtype


def training_stage(stage: int, dtype: str) -> int:
    """The ZeRO stage to train at: 1 for 0 in bf16, where DeepSpeed's stage 0 wastes Adam's first step."""
    if stage == 0 and dtype == "bf16":
        logger.info("bf16 at ZeRO stage 0 runs as stage 1: the same updates with less memory")
        return 1
    return stage


def training_settings(placement: Placement, optimization: Optimization) -> dict[str, Any]:
    """DeepSpeed settings of a model that is trained, as the flags imply them."""
    accumulation = optimization.schedule.gradient_accumulation_steps * optimization.passes
    return _shared_settings(placement) | {
        "train_micro_batch_size_per_gpu": optimization.micro_batch_size,
        "gradient_accumulation_steps": accumulation,
        "train_batch_size": optimization.micro_batch_size * accumulation * world_size(),
        "gradient_clipping": GRADIENT_CLIPPING,
        "optimizer": {
            "type": "AdamW",
            "params": {
                "lr": optimization.learning_rate,
                "betas": list(ADAM_BETAS),
                "torch_adam": _needs_torch_adam(placement),
            },
        },
    }


def inference_settings(placement: Placement) -> dict[str, Any]:
    """DeepSpeed settings of a frozen model whose weights are partitioned (stage 3)."""
    return _shared_settings(placement) | {"train_micro_batch_size_per_gpu": 1, "train_batch_size": world_size()}


def load_partitioned(load: Callable[[], nn.Module], settings: dict[str, Any]) -> nn.Module:
    """Call `load`; under ZeRO-3 settings transformers partitions the weights while it reads them."""
    if settings["zero_optimization"]["stage"] < ZERO_PARTITIONED:
        return load()
    from transformers.integrations.deepspeed import HfDeepSpeedConfig

    # transformers finds this object through a weak reference: it must live as long as the load, and no longer,
    # so that models at other stages load whole
    partitioning = HfDeepSpeedConfig(settings)
    model = load()
    del partitioning
    return model


def training_engine(model: nn.Module, settings: dict[str, Any], optimization: Optimization) -> TrainingEngine:
    """A DeepSpeed engine that trains `model`, with the published parameter groups and schedule."""
    import deepspeed
    from transformers import get_scheduler

    def schedule(optimizer: torch.optim.Optimizer) -> Any:
        return get_scheduler(
            optimization.schedule.lr_scheduler_type,
            optimizer,
            num_warmup_steps=optimization.schedule.warmup_steps(optimization.total_updates),
            num_training_steps=optimization.total_updates,
        )

    engine, *_ = deepspeed.initialize(
        model=model,
        model_parameters=parameter_groups(
            model, weight_decay=optimization.weight_decay, lora_learning_rate=optimization.lora_learning_rate
        ),
        config=settings,
        lr_scheduler=schedule,
    )
    return engine


def frozen_model(model: nn.Module, settings: dict[str, Any], device: torch.device) -> nn.Module:
    """`model` for evaluation: a DeepSpeed engine at stage 3, the module itself otherwise."""
    model.eval().requires_grad_(False)
    if settings["zero_optimization"]["stage"] < ZERO_PARTITIONED:
        # not to a dtype: rotary frequencies stay float32 in a model loaded in 16 bits, as in the trained engines
        return model.to(device)
    import deepspeed

    engine, *_ = deepspeed.initialize(model=model, config=settings)
    engine.eval()  # returns nothing, unlike a module's
    return engine


def parameter_groups(
    model: nn.Module, *, weight_decay: float, lora_learning_rate: float | None = None
) -> list[dict[str, Any]]:
    """The trained parameters: biases and norms without weight decay, all else with it, LoRA with a rate of its own."""
    undecayed: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    adapter: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        # by name: under ZeRO-3 a parameter has no dimensions to tell by
        is_small = any(part in name.lower() for part in ("bias", "norm", "ln_"))
        (adapter if ".lora_" in name else undecayed if is_small else decayed).append(parameter)
    groups = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": undecayed, "weight_decay": 0.0},
        {"params": adapter, "weight_decay": weight_decay, "lr": lora_learning_rate},
    ]
    return [group for group in groups if group["params"]]


def _shared_settings(placement: Placement) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": placement.stage}
    if placement.stage == ZERO_PARTITIONED:
        zero |= {
            "stage3_param_persistence_threshold": 10_000,
            "stage3_max_live_parameters": 30_000_000,
            "stage3_prefetch_bucket_size": 30_000_000,
        }
    if placement.offload:
        if placement.stage >= 1:
            zero["offload_optimizer"] = {"device": "cpu"}
        if placement.stage == ZERO_PARTITIONED:
            zero["offload_param"] = {"device": "cpu"}
    return {
        "zero_optimization": zero,
        "fp16": {"enabled": placement.dtype == "fp16", "loss_scale_window": FP16_SCALE_WINDOW},
        "bf16": {"enabled": placement.dtype == "bf16"},
        "steps_per_print": STEPS_NEVER,
        "wall_clock_breakdown": False,
    }


def _needs_torch_adam(placement: Placement) -> bool:
    """DeepSpeed compiles its own Adam: not worth a minute on a CPU, not possible without nvcc on a GPU."""
    from deepspeed.accelerator import get_accelerator

    if get_accelerator().device_name() == "cpu":
        return True
    if placement.offload and placement.stage >= 1:
        return False  # the host-side Adam needs only a C++ compiler
    return shutil.which("nvcc") is None

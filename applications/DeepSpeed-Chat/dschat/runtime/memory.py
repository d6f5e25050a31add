"""Estimate of device memory per role, from the model's shape and its placement."""

from __future__ import annotations

from dataclasses import dataclass

from accelerate import init_empty_weights
from transformers import AutoModelForCausalLM, PretrainedConfig

from dschat.config.adapter import AdapterSettings
from dschat.models.lora import adapter_sizes
from dschat.runtime.deepspeed_config import TORCH_DTYPES, Placement
from dschat.runtime.distributed import ZERO_PARTITIONED

FLOAT32_BYTES = 4
FOUR_BIT_BYTES = 0.516  # 4 bits and the doubly quantized scale of every 64 weights (QLoRA, arXiv 2305.14314, Sec. 3)
ADAM_STATES = 2  # first and second moment
GIB = 2**30


@dataclass(frozen=True)
class RoleMemory:
    """Bytes on one device that one model keeps through the whole run; activations and logits come on top."""

    role: str
    parameters: int
    """Number of weights of the model."""
    weights: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        """All of it, in bytes."""
        return self.weights + self.gradients + self.optimizer

    def __str__(self) -> str:
        return (
            f"{self.role}: {self.parameters / 1e6:,.1f} M parameters, {self.total / GIB:.2f} GiB per device (weights "
            f"{self.weights / GIB:.2f}, gradients {self.gradients / GIB:.2f}, optimizer {self.optimizer / GIB:.2f})"
        )


def count_parameters(config: PretrainedConfig) -> int:
    """Number of weights of a causal language model with this config; nothing is allocated."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
    model.tie_weights()  # the empty weights have come apart
    return sum(parameter.numel() for parameter in model.parameters())


def estimate_adapted(
    role: str, config: PretrainedConfig, placement: Placement, adapter: AdapterSettings | None, *, world_size: int
) -> RoleMemory:
    """Device memory of a trained causal language model with this config, with or without a LoRA adapter."""
    if adapter is None:
        return estimate(role, count_parameters(config), placement, trained=True, world_size=world_size)
    sizes = adapter_sizes(config, adapter)
    return estimate(
        role, sizes.total, placement, trained=True, world_size=world_size, trainable=sizes.trained,
        four_bit=sizes.frozen_linear if adapter.quantized else 0,
    )  # fmt: skip


def estimate_average(
    config: PretrainedConfig, adapter: AdapterSettings | None, *, in_host_memory: bool, world_size: int
) -> RoleMemory:
    """Device memory of the moving average of a causal language model's trained weights, in float32."""
    trained = count_parameters(config) if adapter is None else adapter_sizes(config, adapter).trained
    weights = 0.0 if in_host_memory else trained * FLOAT32_BYTES / world_size
    return RoleMemory("moving average", trained, weights, 0.0, 0.0)


def estimate(
    role: str,
    parameters: int,
    placement: Placement,
    *,
    trained: bool,
    world_size: int,
    trainable: int | None = None,
    four_bit: int = 0,
) -> RoleMemory:
    """Device memory of one model under ZeRO (Rajbhandari et al. 2020, arXiv 1910.02054, Sec. 5).

    Stage 1 shares the optimizer states among the ranks, stage 2 the gradients too, stage 3 the weights too.

    Args:
        role: its name in the report.
        parameters: number of weights.
        placement: stage, precision, offload.
        trained: whether it has gradients and an optimizer.
        world_size: number of devices.
        trainable: how many of the weights are trained; None for all.
        four_bit: how many of the weights lie in 4 bits.
    """
    size = TORCH_DTYPES[placement.dtype].itemsize
    share = 1 / world_size
    stage = placement.stage
    weights = ((parameters - four_bit) * size + four_bit * FOUR_BIT_BYTES) * (share if stage == ZERO_PARTITIONED else 1)
    if placement.offload and stage == ZERO_PARTITIONED:
        weights = 0.0
    if not trained:
        return RoleMemory(role, parameters, weights, 0.0, 0.0)
    learned = parameters if trainable is None else trainable
    gradients = learned * size * (share if stage >= 2 else 1)
    master = FLOAT32_BYTES if size < FLOAT32_BYTES else 0
    optimizer = learned * (ADAM_STATES * FLOAT32_BYTES + master) * (share if stage >= 1 else 1)
    if placement.offload and stage >= 1:
        optimizer = 0.0
    return RoleMemory(role, parameters, weights, gradients, optimizer)

"""Device memory per role: estimated from the model's shape and its placement, and measured."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PretrainedConfig

from dschat.config.lora import AdapterSettings
from dschat.models.lora import FrozenModel, WithoutAdapter, adapter_sizes, inner_module
from dschat.runtime.deepspeed_config import TORCH_DTYPES, Placement
from dschat.runtime.distributed import ZERO_PARTITIONED
from dschat.runtime.files import MIB
from dschat.runtime.training_engine import TrainingEngine

FLOAT32_BYTES = 4
FOUR_BIT_BYTES = 0.516  # 4 bits and the doubly quantized scale of every 64 weights (QLoRA, arXiv 2305.14314, Sec. 3)
ADAM_STATES = 2  # first and second moment
GIB = 2**30
STATUS, CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Resets the peak of the resident memory, see proc(5)."""


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


class MemoryMeter:
    """Peaks of this process's memory beyond what it held before: allocated on a GPU, resident on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        """Whose memory it is."""
        self.peaks: dict[str, int] = {}
        """Bytes, by what went on."""

    @contextmanager
    def during(self, what: str) -> Iterator[None]:
        """Measure the body."""
        before = start_peak(self.device)
        yield
        self.peaks[what] = peak_since(before, self.device)

    def describe(self, role: str, model: TrainingEngine | FrozenModel) -> str:
        """What a model holds, and what it took at most to load it."""
        if isinstance(model, WithoutAdapter):
            return f"{role}: no memory of its own, it is the trained model without its adapter"
        return (
            f"{role}: {held_bytes(model) / MIB:,.1f} MiB of weights, gradients and optimizer states; loading it took "
            f"{self.peaks[role] / MIB:,.1f} MiB at most"
        )


def held_bytes(model: TrainingEngine | nn.Module) -> int:
    """Bytes of a model's weights, gradients and optimizer states that this rank holds, on its device or in host memory.

    Args:
        model: a DeepSpeed engine, or a module. What an engine at ZeRO stage 1 or higher holds in buffers of its own
            beside them is not counted.
    """
    parameters = list(inner_module(model).parameters())
    # under ZeRO-3 the parameter itself is empty
    tensors = [getattr(parameter, "ds_tensor", parameter) for parameter in parameters]
    tensors += [parameter.grad for parameter in parameters if parameter.grad is not None]
    wrapper = getattr(model, "optimizer", None)
    optimizer = getattr(wrapper, "optimizer", wrapper)  # torch's, inside DeepSpeed's for ZeRO and 16 bits
    for group in getattr(optimizer, "param_groups", ()):
        tensors += group["params"]
    for state in getattr(optimizer, "state", {}).values():
        tensors += [value for value in state.values() if isinstance(value, torch.Tensor)]
    # weights are often views of one long tensor
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors)}
    return sum(storages.values())


def start_peak(device: torch.device) -> int:
    """Bytes held now; the peak counts from here."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    with suppress(OSError, AttributeError):  # where the system does not offer it, the peak is that of the whole process
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR_REFS.write_text(RESET_PEAK)
    return _resident("VmRSS")


def peak_since(before: int, device: torch.device) -> int:
    """Bytes of the peak beyond `before`."""
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _resident("VmHWM")
    return max(peak - before, 0)


def _resident(field: str) -> int:
    """A memory figure of this process in bytes, from proc(5); 0 on systems without it."""
    if not STATUS.exists():
        return 0
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024

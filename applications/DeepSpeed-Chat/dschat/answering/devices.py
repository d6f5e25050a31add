"""Which device and precision the front ends use."""

from __future__ import annotations

import logging
from typing import Literal

import torch

from dschat.errors import UserError

logger = logging.getLogger(__name__)

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(device: str | None, gpu: int = 0) -> torch.device:
    """The device that was asked for; without one, GPU number `gpu`, or the CPU where there is no GPU.

    Raises:
        UserError: the device does not exist.
    """
    if device is None and not torch.cuda.is_available():
        logger.info("there is no GPU: running on the CPU")
        return torch.device("cpu")
    name = f"cuda:{gpu}" if device is None else device
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name} is no device; pass cpu, cuda or cuda:<number>") from None
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"there is no {chosen}: {torch.cuda.device_count()} GPUs were found; pass --device cpu or another"
        )
    return chosen


def choose_dtype(name: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device) -> torch.dtype:
    """The precision of the weights: auto is bf16 on a GPU that has it, and fp32 elsewhere."""
    if name != "auto":
        return _DTYPES[name]
    return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32

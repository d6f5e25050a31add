"""How fast a device works: its clock, the arithmetic that a model takes, and the share of the peak that it reaches."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

PEAK_TFLOPS = {
    "B200": 2250.0, "H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 312.0, "L40S": 362.0, "L40": 181.0,
    "L4": 121.0, "A10G": 70.0, "A10": 125.0, "A30": 165.0, "A40": 149.7, "A6000": 154.8, "4090": 165.2, "3090": 71.0,
    "V100": 125.0, "T4": 65.0,
}  # fmt: skip
"""Dense 16-bit matrix products in 10^12 operations per second, as the vendor states them; looked up in this order."""


def now(device: torch.device) -> float:
    """Seconds on a monotonic clock, once everything that was asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Operations per second that the device can reach in this precision; None where that is not known."""
    if device.type != "cuda" or dtype not in (torch.float16, torch.bfloat16):
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * tflops for part, tflops in PEAK_TFLOPS.items() if part in name), None)


@dataclass(frozen=True)
class ForwardCost:
    """Floating-point operations of a transformer's forward (Chowdhery et al. 2022, arXiv 2204.02311, App. B)."""

    body: float
    """Per token."""
    head: float
    """Per token whose logits are computed."""
    attention: float
    """Per token and token of its row."""

    def of_rows(self, attention_mask: Tensor, *, scored: Tensor | float) -> Tensor:
        """Operations, a scalar, for rows of which attention_mask [B, L] is 1 on real tokens and `scored` get logits."""
        lengths = attention_mask.sum(dim=-1).double()
        return self.body * lengths.sum() + self.attention * lengths.square().sum() + self.head * scored


def forward_cost(model: PreTrainedModel) -> ForwardCost:
    """The cost of a Hugging Face language model or sequence classifier; its weights may be partitioned by ZeRO-3."""
    inner = model.config.get_text_config()
    head = model.get_output_embeddings()
    # tables are looked up, not multiplied; a tied one is counted as the head
    outside = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}
    outside |= {id(head.weight)} if head is not None else set()
    matrices = sum(_size(p) for p in model.parameters() if _dimensions(p) > 1 and id(p) not in outside)
    return ForwardCost(
        body=2.0 * matrices,
        head=2.0 * _size(head.weight) if head is not None else 0.0,
        attention=4.0 * inner.num_hidden_layers * inner.hidden_size,
    )


def _size(parameter: nn.Parameter) -> int:
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _dimensions(parameter: nn.Parameter) -> int:
    return len(getattr(parameter, "ds_shape", parameter.shape))

"""Costs of forwards against PyTorch's own count of operations, and peaks by device name."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification

from dschat.runtime.throughput import forward_cost, now, peak_flops
from toys.models import FAMILIES, make_causal_lm, make_config

VOCABULARY = 47


def counted(model: torch.nn.Module, ids: torch.Tensor, **options: int) -> int:
    """Operations that PyTorch sees; attention computed with plain matrix products so that it sees those too."""
    model.set_attn_implementation("eager")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(input_ids=ids, use_cache=False, **options)
    return counter.get_total_flops()


@pytest.mark.parametrize("family", FAMILIES)
def test_cost_of_a_language_model_is_what_pytorch_counts(family: str) -> None:
    model = make_causal_lm(family, vocab_size=VOCABULARY)
    ids = torch.randint(3, VOCABULARY, (3, 50))
    cost = forward_cost(model).of_rows(torch.ones_like(ids), scored=3 * 8)
    # beyond the matrices a model has rotations
    assert float(cost) == pytest.approx(counted(model, ids, logits_to_keep=8), rel=0.02)


def test_cost_of_a_reward_model_is_what_pytorch_counts() -> None:
    config = make_config("llama", vocab_size=VOCABULARY)
    config.num_labels, config.pad_token_id = 1, 0
    model = AutoModelForSequenceClassification.from_config(config).eval()
    ids = torch.randint(3, VOCABULARY, (2, 40))
    cost = forward_cost(model).of_rows(torch.ones_like(ids), scored=0.0)
    assert float(cost) == pytest.approx(counted(model, ids), rel=0.02)


def test_padding_costs_nothing_and_rows_cost_by_their_own_length() -> None:
    cost = forward_cost(make_causal_lm("llama", vocab_size=VOCABULARY))
    long, short = torch.ones(1, 9), torch.tensor([[1.0] * 4 + [0.0] * 5])
    both = cost.of_rows(torch.cat([long, short]), scored=0.0)
    assert float(both) == pytest.approx(float(cost.of_rows(long, scored=0.0) + cost.of_rows(short[:, :4], scored=0.0)))


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989.4), ("NVIDIA H100 PCIe", 756.0), ("NVIDIA A100-SXM4-80GB", 312.0),
        ("NVIDIA H200", 989.4), ("NVIDIA L4", 121.0), ("NVIDIA L40S", 362.0), ("NVIDIA A10G", 70.0),
        ("Unheard-of 9000", None),
    ],
)  # fmt: skip
def test_peaks_are_found_by_the_name_of_the_device(
    name: str, tflops: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    device = SimpleNamespace(type="cuda")
    assert peak_flops(device, torch.bfloat16) == (None if tflops is None else 1e12 * tflops)
    assert peak_flops(device, torch.float32) is None
    assert peak_flops(torch.device("cpu"), torch.bfloat16) is None


def test_the_clock_runs() -> None:
    assert now(torch.device("cpu")) <= now(torch.device("cpu"))

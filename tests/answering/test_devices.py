"""Devices and precisions of the front ends."""

from __future__ import annotations

import pytest
import torch

from dschat.answering.devices import choose_device, choose_dtype
from dschat.errors import UserError

CPU, GPU = torch.device("cpu"), torch.device("cuda:1")


def test_without_a_gpu_the_cpu_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(None, gpu=3) == CPU


def test_a_gpu_is_chosen_by_number_and_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device(None, gpu=1) == choose_device("cuda:1") == GPU
    assert choose_device("cpu") == CPU
    with pytest.raises(UserError, match="there is no cuda:2: 2 GPUs were found; pass --device cpu or another"):
        choose_device(None, gpu=2)
    with pytest.raises(UserError, match="--device gpu is no device"):
        choose_device("gpu")


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_is_bf16_where_a_gpu_has_it(has_bf16: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: has_bf16)
    assert choose_dtype("auto", GPU) == (torch.bfloat16 if has_bf16 else torch.float32)
    assert choose_dtype("auto", CPU) == torch.float32
    assert choose_dtype("fp16", CPU) == torch.float16

"""DeepSpeed settings."""

from __future__ import annotations

import pytest
import torch

from dschat.config.lora import AdapterSettings
from dschat.config.runtime import RuntimeConfig
from dschat.config.training import ScheduleConfig
from dschat.models.lora import add_adapter
from dschat.runtime.deepspeed_config import (
    Optimization,
    Placement,
    inference_settings,
    parameter_groups,
    training_settings,
    training_stage,
    usable_dtype,
)
from toys.models import make_causal_lm

OPTIMIZATION = Optimization(
    learning_rate=1e-3, weight_decay=0.1, micro_batch_size=4, schedule=ScheduleConfig(gradient_accumulation_steps=3),
    total_updates=10,
)  # fmt: skip


@pytest.mark.parametrize("stage", range(4))
def test_training_settings_follow_stage_and_offload(stage: int, process_group: torch.device) -> None:
    settings = training_settings(Placement(stage, "bf16", offload=True), OPTIMIZATION)
    zero = settings["zero_optimization"]
    assert zero["stage"] == stage
    assert ("offload_optimizer" in zero) == (stage >= 1)
    assert ("offload_param" in zero) == (stage == 3)
    assert settings["bf16"]["enabled"] is True
    assert settings["fp16"]["enabled"] is False
    assert settings["train_batch_size"] == 12


def test_frozen_models_get_no_optimizer(process_group: torch.device) -> None:
    settings = inference_settings(Placement(3, "fp32", offload=False))
    assert "optimizer" not in settings
    assert settings["zero_optimization"]["stage"] == 3


def test_biases_and_norms_are_not_decayed() -> None:
    model = make_causal_lm("opt", vocab_size=47)
    decayed, undecayed = parameter_groups(model, weight_decay=0.1)
    names = {id(p): n for n, p in model.named_parameters()}
    assert decayed["weight_decay"] == 0.1
    assert undecayed["weight_decay"] == 0.0
    assert all("bias" in names[id(p)] or "norm" in names[id(p)] for p in undecayed["params"])
    assert len(decayed["params"]) + len(undecayed["params"]) == len(names)


def test_an_adapter_has_a_learning_rate_of_its_own_and_frozen_weights_have_none() -> None:
    model = make_causal_lm("opt", vocab_size=47)
    adapter = AdapterSettings(
        rank=4, alpha=1.0, module_names=("fc1",), learning_rate=0.3, alone=False, quantized=False, role=""
    )
    add_adapter(model, adapter, seed=0)
    groups = parameter_groups(model, weight_decay=0.1, lora_learning_rate=0.3)
    assert [(group["weight_decay"], group.get("lr")) for group in groups] == [(0.1, None), (0.0, None), (0.1, 0.3)]
    names = {id(p): n for n, p in model.named_parameters()}
    assert all(".lora_" in names[id(p)] for p in groups[2]["params"])
    listed = {names[id(p)] for group in groups for p in group["params"]}
    assert set(names.values()) - listed == {f"model.decoder.layers.{i}.fc1.base_layer.weight" for i in (0, 1)}


def test_stage_zero_in_16_bits_runs_as_stage_one() -> None:
    assert training_stage(0, "bf16") == 1
    assert training_stage(0, "fp32") == 0
    assert training_stage(3, "bf16") == 3


def test_fp16_falls_back_only_where_the_device_lacks_it(
    process_group: torch.device, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from deepspeed.accelerator import get_accelerator

    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: False)
    assert usable_dtype(RuntimeConfig(dtype="fp16")) == "bf16"
    assert "no fp16" in caplog.text
    monkeypatch.setattr(get_accelerator(), "is_fp16_supported", lambda: True)
    assert usable_dtype(RuntimeConfig(dtype="fp16")) == "fp16"
    assert usable_dtype(RuntimeConfig(dtype="fp32")) == "fp32"

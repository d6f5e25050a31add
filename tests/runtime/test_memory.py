"""Memory estimates."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dschat.config.lora import AdapterSettings
from dschat.models.lora import adapter_sizes
from dschat.runtime.deepspeed_config import Placement
from dschat.runtime.memory import count_parameters, estimate, estimate_adapted, estimate_average
from toys.models import FAMILIES, make_causal_lm, make_config


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_without_loading(family: str) -> None:
    model = make_causal_lm(family, vocab_size=47)
    assert count_parameters(make_config(family, vocab_size=47)) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("stage", "offload", "bytes_per_weight"),
    [(0, False, 2 + 2 + 12), (1, False, 2 + 2 + 3), (2, False, 2 + 0.5 + 3), (3, False, 0.5 + 0.5 + 3),
     (2, True, 2 + 0.5), (3, True, 0.5)],
)  # fmt: skip
def test_training_in_bf16_on_four_devices_takes_the_published_bytes(
    stage: int, offload: bool, bytes_per_weight: float
) -> None:
    memory = estimate("actor", 1000, Placement(stage, "bf16", offload), trained=True, world_size=4)
    assert memory.total == pytest.approx(1000 * bytes_per_weight)


def test_only_an_adapter_has_gradients_and_optimizer_states() -> None:
    config = make_config("llama", vocab_size=47)
    adapter = AdapterSettings(
        rank=4, alpha=1.0, module_names=(), learning_rate=1e-3, alone=True, quantized=False, role=""
    )
    sizes = adapter_sizes(config, adapter)
    placement = Placement(1, "bf16", offload=False)
    memory = estimate_adapted("model", config, placement, adapter, world_size=1)
    assert memory.weights == 2 * sizes.total
    assert (memory.gradients, memory.optimizer) == (2 * sizes.trained, 12 * sizes.trained)
    assert sizes.trained < sizes.total / 5
    four_bit = estimate_adapted("model", config, placement, replace(adapter, quantized=True), world_size=1)
    assert four_bit.weights == pytest.approx(2 * (sizes.total - sizes.frozen_linear) + 0.516 * sizes.frozen_linear)
    assert estimate_adapted("model", config, placement, None, world_size=1).optimizer == 12 * count_parameters(config)


def test_ranks_share_the_moving_average_of_the_trained_weights() -> None:
    config = make_config("llama", vocab_size=47)
    on_device = estimate_average(config, None, in_host_memory=False, world_size=4)
    assert on_device.total == count_parameters(config)
    assert estimate_average(config, None, in_host_memory=True, world_size=4).total == 0


def test_a_frozen_model_has_weights_alone() -> None:
    memory = estimate("reference", 10**9, Placement(0, "bf16", offload=False), trained=False, world_size=4)
    assert (memory.total, memory.optimizer) == (2e9, 0.0)
    assert "reference: 1,000.0 M parameters, 1.86 GiB per device" in str(memory)

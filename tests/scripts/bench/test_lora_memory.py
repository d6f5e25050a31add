"""The benchmark of LoRA's memory, on a model small enough to count by hand."""

from __future__ import annotations

import argparse

import pytest
import torch
from rich.console import Console

import lora_memory
from toys.models import make_config

FLOAT32 = 4


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, lora_memory.Memory]:
    folder = tmp_path_factory.mktemp("config")
    make_config("llama", vocab_size=64).save_pretrained(folder)
    return {
        variant: lora_memory.measure(
            argparse.Namespace(config=str(folder), rank=2, batch=2, tokens=8, steps=2, variant=variant)
        )
        for variant in lora_memory.VARIANTS
    }


def test_gradients_and_optimizer_states_are_those_of_the_trained_weights(
    found: dict[str, lora_memory.Memory],
) -> None:
    for memory in found.values():
        assert memory.gradients == FLOAT32 * memory.trained
        # two moments each, and one step counter per tensor
        assert 0 <= memory.optimizer - 2 * FLOAT32 * memory.trained <= FLOAT32 * 100


def test_only_the_adapter_alone_needs_no_reference_of_its_own(found: dict[str, lora_memory.Memory]) -> None:
    full, beside, alone = (found[variant] for variant in lora_memory.VARIANTS)
    assert full.weights == full.reference == beside.reference == FLOAT32 * full.trained
    assert alone.reference == 0
    assert alone.weights == beside.weights == full.weights + FLOAT32 * alone.trained
    assert alone.trained < beside.trained < full.trained


def test_the_table_has_a_row_per_variant(found: dict[str, lora_memory.Memory]) -> None:
    console = Console(width=120, record=True)
    lora_memory.show(found, console)
    printed = console.export_text()
    assert all(variant in printed for variant in lora_memory.VARIANTS)

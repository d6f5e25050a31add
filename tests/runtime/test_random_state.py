"""Random generators go on where they were, after a round trip through a file that runs no code."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import torch

from dschat.runtime.random_state import random_state, seed_generators, set_random_state

CPU = torch.device("cpu")


def draw() -> tuple[float, ...]:
    normal = random.gauss(0, 1), float(np.random.normal()), torch.randn(()).item()  # of which halves are kept
    return (random.random(), float(np.random.rand()), torch.rand(()).item(), *normal)


def test_every_generator_goes_on(tmp_path: Path) -> None:
    seed_generators(5)
    draw()
    torch.save(random_state(CPU), tmp_path / "state.pt")
    expected = [draw(), draw()]
    seed_generators(6)
    set_random_state(torch.load(tmp_path / "state.pt", weights_only=True), CPU)
    assert [draw(), draw()] == expected


def test_seeds_beyond_32_bits_are_taken() -> None:
    found = []
    for seed in (3, 3 + 2**32, 3):
        seed_generators(seed)
        found.append(draw())
    assert found[0] == found[2]
    assert found[0][0] != found[1][0]  # NumPy and torch take 32 bits

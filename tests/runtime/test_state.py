"""What a run must remember, under names; whether it is all of it is asked in tests/resume/test_every_piece.py."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dschat.errors import UserError
from dschat.runtime.state import TrainingState

CPU = torch.device("cpu")


class Number:
    """A part with one number."""

    def __init__(self, value: float) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        """The number."""
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take it back."""
        self.value = state["value"]


def test_parts_have_names_of_their_own() -> None:
    state = TrainingState({"actor": object()}, device=CPU)
    state.register("coefficient", Number(1))
    for name in ("actor", "coefficient"):
        with pytest.raises(ValueError, match=f"the state already has a part '{name}'"):
            state.register(name, Number(2), per_rank=True)


def state_of(shared: float, own: float) -> tuple[TrainingState, Number, Number]:
    """A state with a part that all ranks share and one of each rank."""
    state, parts = TrainingState({}, device=CPU), (Number(shared), Number(own))
    state.register("shared", parts[0])
    state.register("own", parts[1], per_rank=True)
    return state, *parts


def test_parts_come_back_with_the_generators(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state, *_ = state_of(1.5, 2.5)
    state.save(tmp_path)
    expected = torch.rand(3)
    again, shared, own = state_of(0, 0)
    torch.manual_seed(4)
    again.restore(tmp_path, step=1, saved_ranks=1, scratch=tmp_path / "scratch")
    assert (shared.value, own.value) == (1.5, 2.5)
    assert torch.equal(torch.rand(3), expected)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(again.expected_files())


def test_a_state_of_other_parts_or_of_ranks_that_differ_is_refused(tmp_path: Path) -> None:
    state, *_ = state_of(1.5, 2.5)
    state.save(tmp_path)
    with pytest.raises(UserError, match=r"by 2 rank.*, and own cannot be spread over 1; start the run with 2"):
        state.restore(tmp_path, step=1, saved_ranks=2, scratch=tmp_path / "scratch")
    with pytest.raises(UserError, match="holds shared, this run has no further part"):
        TrainingState({}, device=CPU).restore(tmp_path, step=1, saved_ranks=1, scratch=tmp_path / "scratch")


def test_the_estimate_counts_weights_copies_and_two_moments() -> None:
    layer = torch.nn.Linear(3, 5)
    engines = {"a": SimpleNamespace(module=layer), "b": SimpleNamespace(module=torch.nn.Linear(3, 5).bfloat16())}
    # float32: 4 + 8 bytes a weight; bfloat16: 2 + 4 + 8
    assert TrainingState(engines, device=CPU).estimated_bytes() == 20 * (12 + 14)

"""What a run must remember to go on as if it had never stopped: engines, random generators, and registered parts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch

from dschat.errors import UserError
from dschat.runtime.distributed import is_main_process, rank, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.random_state import random_state, seed_generators, set_random_state
from dschat.runtime.reshape import load_reshaped
from dschat.runtime.training_engine import TrainingEngine

SHARED_FILE = "shared.pt"
FLOAT32_BYTES = 4
ADAM_STATES = 2
SEED_STRIDE = 1_000_003
"""Keeps the seeds of a run that goes on with other ranks apart from those of its start."""


class Stateful(Protocol):
    """Something that changes while a run trains and is not a DeepSpeed engine."""

    def state_dict(self) -> Mapping[str, Any]:
        """Tensors, numbers, texts and None, in dicts, lists and tuples, so that `weights_only` loads them."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take over what `state_dict` returned; tensors lie on the CPU."""
        ...


class TrainingState:
    """Everything that a run changes, under names. All ranks call every method together."""

    def __init__(self, engines: Mapping[str, TrainingEngine], *, device: torch.device) -> None:
        """
        Args:
            engines: DeepSpeed engines in training; each saves weights, optimizer, schedule and loss scale.
            device: where this rank computes, for its random generator.
        """
        self._engines = dict(engines)
        self._device = device
        self._shared: dict[str, Stateful] = {}
        self._per_rank: dict[str, Stateful] = {}

    def register(self, name: str, part: Stateful, *, per_rank: bool = False) -> None:
        """Save and load `part` with the rest.

        Args:
            name: its key in the saved state.
            part: a moving average, running statistics, an adaptive coefficient, ...
            per_rank: False where every rank holds the same, which rank 0 saves once; True where ranks differ, which
                ties the state to this number of ranks.
        """
        taken = {*self._engines, *self._shared, *self._per_rank}
        if name in taken:
            raise ValueError(f"the state already has a part {name!r}")
        (self._per_rank if per_rank else self._shared)[name] = part

    def save(self, folder: Path) -> None:
        """Save everything into an existing folder."""
        for name, engine in self._engines.items():
            fault_point(f"state.{name}")
            engine.save_checkpoint(str(folder), tag=name, save_latest=False)
        fault_point("state.rank")
        parts = {name: part.state_dict() for name, part in self._per_rank.items()}
        torch.save({"random": random_state(self._device), "parts": parts}, folder / _rank_file(rank()))
        if is_main_process():
            fault_point("state.shared")
            torch.save({name: part.state_dict() for name, part in self._shared.items()}, folder / SHARED_FILE)

    def restore(self, folder: Path, *, step: int, saved_ranks: int, scratch: Path) -> None:
        """Take back what `save` wrote; only from a folder whose files match its manifest, as DeepSpeed unpickles.

        Args:
            folder: a whole state.
            step: the step that it is of.
            saved_ranks: how many ranks wrote it. Where it is another number than now, engines are reshaped and random
                generators begin anew, so that the run goes on alike but not to the last bit.
            scratch: a place for reshaped engines; deleted afterwards.
        Raises:
            UserError: the state has other parts than this run, or cannot be reshaped.
        """
        same = saved_ranks == world_size()
        if not same and self._per_rank:
            raise UserError(
                f"{folder} was saved by {saved_ranks} rank(s), and {_listed(self._per_rank)} cannot be spread over "
                f"{world_size()}; start the run with {saved_ranks}"
            )
        for name, engine in self._engines.items():
            if same or engine.zero_optimization_stage() == 0:
                path, _ = engine.load_checkpoint(str(folder), tag=name)
            else:
                path = load_reshaped(engine, folder, name, scratch)
            if path is None:
                raise UserError(f"{folder} holds no {name}; resume from a state of the same step of the pipeline")
        shared = torch.load(folder / SHARED_FILE, weights_only=True, map_location="cpu")
        _load_parts(self._shared, shared, folder)
        # generators last: loading may draw numbers
        if same:
            own = torch.load(folder / _rank_file(rank()), weights_only=True, map_location="cpu")
            _load_parts(self._per_rank, own["parts"], folder)
            set_random_state(own["random"], self._device)
        else:
            seed_generators(torch.initial_seed() + SEED_STRIDE * step)

    def expected_files(self) -> list[str]:
        """Files that every rank's write leaves, by which a folder that ranks do not share is noticed."""
        return [SHARED_FILE, *(_rank_file(number) for number in range(world_size()))]

    def estimated_bytes(self) -> int:
        """About how many bytes all ranks together write: weights, float32 copies, and two states of Adam."""
        total = 0
        for engine in self._engines.values():
            for parameter in engine.module.parameters():
                size = parameter.element_size()
                master = FLOAT32_BYTES if size < FLOAT32_BYTES else 0
                # under ZeRO-3 the tensor itself is empty
                count = getattr(parameter, "ds_numel", parameter.numel())
                total += count * (size + master + ADAM_STATES * FLOAT32_BYTES)
        return total


def _rank_file(number: int) -> str:
    return f"rank-{number}.pt"


def _load_parts(parts: Mapping[str, Stateful], saved: Mapping[str, Any], folder: Path) -> None:
    if parts.keys() != saved.keys():
        raise UserError(
            f"{folder} holds {_listed(saved)}, this run has {_listed(parts)}; resume with the flags and the version "
            "of the run that saved it"
        )
    for name, part in parts.items():
        part.load_state_dict(saved[name])


def _listed(names: Mapping[str, Any]) -> str:
    return ", ".join(sorted(names)) or "no further part"

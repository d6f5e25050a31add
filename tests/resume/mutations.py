"""Set-up functions of the forked jobs: a run that uses every kind of state, and one that forgets a piece of it."""

from __future__ import annotations

import copy
import math
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dschat.offline.loop import BatchResult, OfflineSteps
from dschat.offline.sft import SFTObjective
from dschat.rlhf import run_ppo
from dschat.rlhf.experience import Rollout
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from dschat.runtime import metrics
from dschat.runtime.distributed import rank
from dschat.runtime.run import ResumableRun
from dschat.runtime.state import TrainingState
from toys.generators import FixedAnswers
from toys.tokenizers import make_tokenizer

FORGET = "DSCHAT_TEST_FORGET"
PIECES = (
    *("actor weights", "actor optimizer", "actor schedule", "critic weights", "critic optimizer", "critic schedule"),
    *("python generator", "numpy generator", "torch generator"),
    *("shared part", "part of each rank", "broken_steps", "health", "trainer", "average"),
    *("finished steps", "end of the metrics"),
)


class Counted:
    """A part that changes with every reward; state_dict has a tensor, a number and a text."""

    def __init__(self) -> None:
        self.total = torch.zeros(2)
        self.calls = 0

    def state_dict(self) -> dict[str, Any]:
        """All of it."""
        return {"total": self.total, "calls": self.calls, "name": "counted"}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it back."""
        self.total, self.calls = state["total"].clone(), state["calls"]


class RewardThatRemembers(RewardSource):
    """A score that depends on every generator and on registered parts; broken in the very first batch."""

    def __init__(self, shared: Counted, per_rank: Counted) -> None:
        self._shared = shared
        self._per_rank = per_rank

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B]."""
        score = rollout.response_mask.sum(dim=-1).float() + random.random() + np.random.rand()
        for part in (self._shared, self._per_rank):
            part.calls += 1
            score = score - part.total[0] / part.calls
            part.total += score.mean()
        return SequenceScores(score * torch.nan if self._shared.calls == 1 else score)


def remember_everything() -> None:
    """Register parts, and reward with their help."""
    original = TrainingState.__init__
    shared, per_rank = Counted(), Counted()

    def init(state: TrainingState, *args: Any, **kwargs: Any) -> None:
        original(state, *args, **kwargs)
        state.register("counted", shared)
        state.register("counted_here", per_rank, per_rank=True)

    TrainingState.__init__ = init
    run_ppo.build_reward_source = lambda *args, **kwargs: RewardThatRemembers(shared, per_rank)
    if FORGET in os.environ:
        forget(os.environ[FORGET])


SILENT_STEPS = (2, 3)


def say_nothing_in_two_steps() -> None:
    """Every answer of steps 2 and 3 ends at once, on all ranks."""
    original = DeepSpeedPPOTrainer.generate_experience

    def generate(trainer: DeepSpeedPPOTrainer, *args: Any, step: int) -> Any:
        with saying(trainer, [make_tokenizer().eos_token_id] if step in SILENT_STEPS else None):
            return original(trainer, *args, step=step)

    DeepSpeedPPOTrainer.generate_experience = generate


@contextmanager
def saying(trainer: DeepSpeedPPOTrainer, answer: list[int] | None) -> Iterator[None]:
    """Within the body every prompt is answered with these tokens, None for the actor's own."""
    own = trainer._generator
    if answer is not None:
        trainer._generator = FixedAnswers(lambda prompts: torch.tensor(answer).expand(len(prompts.input_ids), -1))
    try:
        yield
    finally:
        trainer._generator = own


def raise_on_rank_1() -> None:
    """The second rank meets a bug in its second step."""

    def bug() -> None:
        raise KeyError("a bug of this rank")

    _in_second_step_of_rank_1(bug)


def exit_on_rank_1() -> None:
    """The second rank leaves in its second step as if all were done."""
    _in_second_step_of_rank_1(lambda: os._exit(0))


def _in_second_step_of_rank_1(action: Callable[[], None]) -> None:
    original = OfflineSteps.update

    def update(steps: OfflineSteps, step: int) -> dict[str, float]:
        if step == 2 and rank() == 1:
            action()
        return original(steps, step)

    OfflineSteps.update = update


def break_losses_of_rank_1() -> None:
    """The loss of the third step is NaN on the second rank."""
    original = SFTObjective.__call__
    steps = 0

    def poisoned(self: SFTObjective, engine: Any, batch: Any) -> BatchResult:
        nonlocal steps
        result = original(self, engine, batch)
        steps += engine.module.training
        broken = engine.module.training and steps == 3 and rank() == 1
        return BatchResult(result.loss_sum * math.nan, result.metrics) if broken else result

    SFTObjective.__call__ = poisoned


def forget_the_torch_generator() -> None:
    """Draw other dropout after a resumption."""
    forget("torch generator")


def forget(piece: str) -> None:
    """Leave one piece of the state as it was before the state was read."""
    if piece == "finished steps":
        ResumableRun.done = property(lambda run: 1 if run._point else 0)
        return
    if piece == "end of the metrics":
        metrics.cut_back = lambda path, done: None
        return
    original = TrainingState.restore

    def read(state: TrainingState, folder: Path, **how: Any) -> None:
        put_back = _remembered(state, piece)
        original(state, folder, **how)
        put_back()

    TrainingState.restore = read


def _remembered(state: TrainingState, piece: str) -> Callable[[], Any]:
    """A function that sets a piece to what it is now."""
    part, _, kind = piece.partition(" ")
    match piece:
        case "python generator":
            python = random.getstate()
            return lambda: random.setstate(python)
        case "numpy generator":
            numpy_state = np.random.get_state()
            return lambda: np.random.set_state(numpy_state)
        case "torch generator":
            generator = torch.get_rng_state()
            return lambda: torch.set_rng_state(generator)
        case "shared part" | "part of each rank" | "broken_steps" | "health" | "trainer" | "average":
            parts = {**state._shared, **state._per_rank}
            member = parts[{"shared part": "counted", "part of each rank": "counted_here"}.get(piece, piece)]
            before = copy.deepcopy(member.state_dict())
            return lambda: member.load_state_dict(before)
    engine = state._engines[part]
    match kind:
        case "weights":
            values = [parameter.detach().clone() for parameter in engine.module.parameters()]
            return lambda: _copy(engine.module, values)
        case "optimizer":
            return lambda: engine.optimizer.state.clear()
        case "schedule":
            schedule = engine.lr_scheduler.state_dict()
            return lambda: engine.lr_scheduler.load_state_dict(schedule)
    raise ValueError(piece)


@torch.no_grad()
def _copy(model: torch.nn.Module, values: list[Tensor]) -> None:
    for parameter, value in zip(model.parameters(), values, strict=True):
        parameter.copy_(value)

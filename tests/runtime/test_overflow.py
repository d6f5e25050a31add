"""Steps that are made or skipped together; bf16 stands in for fp16, which CPUs lack."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dschat.config.sections import ScheduleConfig
from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
from dschat.runtime.distributed import gathered
from dschat.runtime.overflow import step_together


class FakeEngine:
    """What `step_together` uses of an engine, written down."""

    def __init__(self, *, overflow: bool, boundary: bool = True) -> None:
        self.asked = 0
        self.skipped: list[bool] = []
        self.is_gradient_accumulation_boundary = lambda: boundary
        self.optimizer = FakeOptimizer(self, overflow)

    def step(self) -> None:
        self.skipped.append(self.optimizer.has_overflow(True))


class FakeOptimizer(SimpleNamespace):
    def __init__(self, engine: FakeEngine, overflow: bool) -> None:
        super().__init__(engine=engine, overflow=overflow)

    def has_overflow(self, partition_gradients: bool = True) -> bool:
        self.engine.asked += 1
        return self.overflow


@pytest.mark.parametrize(
    ("actor", "critic", "skipped"),
    [(False, False, False), (True, False, True), (False, True, True), (True, True, True)],
)
def test_both_step_or_neither(actor: bool, critic: bool, skipped: bool) -> None:
    engines = [FakeEngine(overflow=actor), FakeEngine(overflow=critic)]
    step_together(engines)
    assert [engine.skipped for engine in engines] == [[skipped], [skipped]]
    # every rank asks every engine, whatever the first one says: asking is collective
    assert all(engine.asked >= 1 for engine in engines)
    # and the claim is taken back
    assert [engine.optimizer.has_overflow() for engine in engines] == [actor, critic]


def test_between_optimizer_steps_nobody_is_asked() -> None:
    engines = [FakeEngine(overflow=True, boundary=False), FakeEngine(overflow=False, boundary=False)]
    step_together(engines)
    assert [engine.skipped for engine in engines] == [[True], [False]]
    assert [engine.asked for engine in engines] == [1, 1]  # by the steps themselves


def make_engine(stage: int) -> Any:
    torch.manual_seed(0)
    optimization = Optimization(
        1e-1, 0.0, 4, ScheduleConfig(gradient_accumulation_steps=2, lr_scheduler_type="constant"), 10
    )
    settings = training_settings(Placement(stage, "bf16", offload=False), optimization)
    engine = training_engine(nn.Linear(6, 3).bfloat16(), settings, optimization)
    engine.optimizer.dtype = torch.float16  # stage 3 looks at gradients in fp16 alone, stages 1 and 2 in bf16 as well
    return engine


def weight_of(engine: Any) -> Tensor:
    weight = engine.module.weight
    with gathered([weight]):
        return weight.detach().clone()


@pytest.mark.parametrize(("stages", "broken"), [((1, 2), 0), ((3, 3), 1)])
def test_real_engines_skip_and_go_on_together(
    stages: tuple[int, int], broken: int, process_group: torch.device
) -> None:
    engines = [make_engine(stage) for stage in stages]
    before = [weight_of(engine) for engine in engines]
    inputs = torch.ones(4, 6, dtype=torch.bfloat16)
    for largest in (1.0, torch.inf):  # the second micro-batch overflows in one of them
        for number, engine in enumerate(engines):
            engine.backward(engine(inputs).float().sum() * (largest if number == broken else 1.0))
        step_together(engines)
    assert [engine.skipped_steps for engine in engines] == [1, 1]
    assert all(torch.equal(weight_of(engine), old) for engine, old in zip(engines, before, strict=True))
    for _ in range(2):
        for engine in engines:
            engine.backward(engine(inputs).float().sum())
        step_together(engines)
    assert [engine.skipped_steps for engine in engines] == [1, 1]
    assert all((weight_of(engine) - old).abs().min() > 0.05 for engine, old in zip(engines, before, strict=True))

"""Rows of the stages on data fixed beforehand: which a step takes, and when it is evaluated and saved."""

from __future__ import annotations

from itertools import chain
from types import SimpleNamespace

import pytest

from dschat.config.training import ScheduleConfig, SupervisedConfig
from dschat.offline import loop
from dschat.offline.loop import Batches, OfflineSteps
from dschat.runtime.guards import NonFinite


def batches(rows: int = 22, *, epochs: int = 2, max_steps: int = 0, eval_interval: int = 0) -> Batches:
    """Four rows in two micro-batches per step and rank."""
    training = SupervisedConfig("model", per_device_train_batch_size=2, eval_interval=eval_interval)
    schedule = ScheduleConfig(num_train_epochs=epochs, max_steps=max_steps, gradient_accumulation_steps=2)
    return Batches(training, schedule, seed=3, rows=rows)


def steps(plan: Batches) -> OfflineSteps:
    """Without a model: what follows from the numbers of steps alone."""
    prepared = SimpleNamespace(data=SimpleNamespace(train=range(plan.rows), evaluation=[]), device=None)
    return OfflineSteps(None, None, plan, prepared, None, title="toy", shown_metrics=())  # type: ignore[arg-type]


@pytest.fixture(params=[1, 3])
def world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(loop, "world_size", lambda: request.param)
    return request.param


def test_an_epoch_visits_every_row_once_whatever_the_number_of_ranks(
    world: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = batches()
    assert plan.rows_per_step == 4 * world
    assert plan.total_steps == 2 * plan.steps_per_epoch
    epochs = []
    for epoch in (0, 1):
        seen: list[int] = []
        for step in range(epoch * plan.steps_per_epoch + 1, (epoch + 1) * plan.steps_per_epoch + 1):
            for number in range(world):
                monkeypatch.setattr(loop, "rank", lambda number=number: number)
                micro = plan.of_this_rank(step)
                assert len(micro) == 2
                assert all(len(rows) <= 2 for rows in micro)
                seen += chain.from_iterable(micro)
        assert sorted(seen) == list(range(22))
        epochs.append(seen)
    assert epochs[0] != epochs[1]


def test_the_run_ends_after_max_steps() -> None:
    assert batches(max_steps=5).total_steps == 5
    assert batches(max_steps=99).total_steps == 12


def test_evaluation_and_saving_come_with_epochs_the_interval_and_the_end() -> None:
    plan = batches(max_steps=11, eval_interval=4)
    stage = steps(plan)
    assert [step for step in range(12) if stage.evaluation_due(step)] == [0, 4, 6, 8, 11]
    assert [step for step in range(1, 12) if stage.saving_due(step)] == [4, 6, 8, 11]
    assert stage.total_steps == 11


def test_a_fault_belongs_to_the_rows_of_its_micro_batches() -> None:
    plan = batches()
    stage, (first, second) = steps(plan), plan.of_this_rank(3)

    def fault(positions: list[int] | None) -> NonFinite:
        return NonFinite("training loss", step=3, culprit=0, positions=positions)

    assert stage.rows_of(fault([1]), 3) == second
    assert stage.rows_of(fault([]), 3) == []
    assert stage.rows_of(fault(None), 3) == first + second

"""The one loop of all stages: what it does in which order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from dschat.config.runtime import GuardConfig, SavingConfig
from dschat.errors import TrainingFault
from dschat.loop import TrainingLoop
from dschat.runtime.guards import NonFinite
from dschat.runtime.run import Continuation
from dschat.runtime.store import StateStore

STEPS = 5


class Recorded:
    """A stage that says what is asked of it; evaluated at even steps and at the end, saved at step 3 and at the end."""

    title = "recorded"
    shown_metrics = ("loss",)
    total_steps = STEPS

    def __init__(self, *, broken: int | None = None, evaluates_first: bool = True) -> None:
        self.calls: list[str] = []
        self._broken = broken
        self._evaluates_first = evaluates_first

    def update(self, step: int) -> dict[str, float]:
        self.calls.append(f"update {step}")
        if step == self._broken:
            raise NonFinite("loss", step=step, culprit=0, positions=[1])
        return {"loss": 1.0 / step, "step_seconds": 0.0}

    def rows_of(self, fault: NonFinite, step: int) -> list[int]:
        self.calls.append(f"rows {step}")
        return [10 * step + position for position in fault.positions or ()]

    def evaluation_due(self, step: int) -> bool:
        return step in (2, 4, STEPS) or (step == 0 and self._evaluates_first)

    def evaluate(self, step: int) -> dict[str, float]:
        self.calls.append(f"evaluate {step}")
        return {"eval_loss": 2.0}

    def saving_due(self, step: int) -> bool:
        return step in (3, STEPS)

    def save(self, step: int) -> None:
        self.calls.append(f"save {step}")


@pytest.fixture
def goes_on(tmp_path: Path, process_group: torch.device) -> Continuation:
    saving = SavingConfig(save_only_model=True)
    store = StateStore(tmp_path / "state", "sft", {}, limit=1, on_full_disk="stop")
    return Continuation(tmp_path, saving, store, None, torch.device("cpu"))


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def run(stage: Recorded, goes_on: Continuation, guards: GuardConfig | None = None) -> TrainingLoop:
    loop = TrainingLoop({}, guards or GuardConfig(), goes_on, tensorboard=None)
    loop.run(stage)
    return loop


def test_a_step_is_trained_evaluated_written_and_saved_in_this_order(goes_on: Continuation, tmp_path: Path) -> None:
    stage = Recorded()
    run(stage, goes_on)
    assert stage.calls == [
        "evaluate 0",
        *("update 1", "update 2", "evaluate 2", "update 3", "save 3", "update 4", "evaluate 4"),
        *("update 5", "evaluate 5", "save 5"),
    ]
    written = lines(tmp_path)
    assert [line["step"] for line in written] == list(range(STEPS + 1))
    assert [line["step"] for line in written if "eval_loss" in line] == [0, 2, 4, 5]
    assert [line["skipped_steps"] for line in written[1:]] == [0] * STEPS
    assert all("run_seconds" in line for line in written[1:])


def test_no_evaluation_comes_first_where_the_stage_wants_none(goes_on: Continuation, tmp_path: Path) -> None:
    stage = Recorded(evaluates_first=False)
    run(stage, goes_on)
    assert stage.calls[0] == "update 1"
    assert lines(tmp_path)[0]["step"] == 1


def test_a_broken_step_is_left_out_and_the_others_go_on(goes_on: Continuation, tmp_path: Path) -> None:
    stage = Recorded(broken=2)
    loop = run(stage, goes_on, GuardConfig(on_nan="skip"))
    assert stage.calls[1:5] == ["update 1", "update 2", "rows 2", "evaluate 2"]
    assert [line.get("loss") for line in lines(tmp_path)] == [None, 1.0, None, 1 / 3, 1 / 4, 1 / 5]
    assert [line["skipped_steps"] for line in lines(tmp_path)[1:]] == [0, 1, 1, 1, 1]
    assert loop.broken.skipped == 1


def test_a_broken_step_ends_the_run_with_its_rows_unless_told_otherwise(goes_on: Continuation, tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match=r"the loss became NaN or infinite at step 2 .*\(training rows 21\)"):
        run(Recorded(broken=2), goes_on)
    assert [line["step"] for line in lines(tmp_path)] == [0, 1]

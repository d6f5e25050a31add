"""NaN and infinity in losses, rewards, logits and weights: the run stops with a report, or leaves the step out."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.errors import TrainingFault
from dschat.offline.loop import Batches, OfflineSteps
from dschat.offline.sft import SFTObjective
from dschat.rlhf.experience import Rollout
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from soak.runs import job
from toys.jobs import Job, run_job

pytestmark = pytest.mark.usefixtures("process_group")


class RewardOfLength(RewardSource):
    """Longer answers are better; NaN for the second row of chosen batches."""

    def __init__(self, broken_batches: set[int]) -> None:
        self._broken = broken_batches
        self._batch = 0

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B]."""
        self._batch += 1
        score = rollout.response_mask.sum(dim=-1).float()
        if self._batch in self._broken:
            score[1] = torch.nan
        return SequenceScores(score)


def poison_loss(monkeypatch: pytest.MonkeyPatch, micro_batches: set[int]) -> None:
    """Make the loss of the numbered training micro-batches NaN."""
    original: Callable[..., Any] = SFTObjective.__call__
    count = 0

    def poisoned(self: SFTObjective, engine: Any, batch: Any) -> Any:
        nonlocal count
        result = original(self, engine, batch)
        if not engine.module.training:
            return result
        count += 1
        wrong = result.loss_sum * math.nan if count in micro_batches else result.loss_sum
        return type(result)(loss_sum=wrong, metrics=result.metrics)

    monkeypatch.setattr(SFTObjective, "__call__", poisoned)


def sft(paths: dict[str, str], output: Path, extra: str = "") -> Any:
    cut = "--per_device_train_batch_size 4 --gradient_accumulation_steps 2 --max_steps 8 --dropout 0"
    return job("sft", paths, output, f"{cut} {extra}")


def test_the_report_names_the_rows_of_the_broken_micro_batch(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[list[list[int]]] = []
    original = Batches.of_this_rank
    monkeypatch.setattr(Batches, "of_this_rank", lambda batches, step: rows.append(original(batches, step)) or rows[-1])
    poison_loss(monkeypatch, {6})
    with pytest.raises(TrainingFault) as caught:
        run_job(sft(paths, tmp_path / "out"))
    broken = ", ".join(map(str, sorted(rows[2][1])))
    assert "the training loss became NaN or infinite at step 3 on rank 0; no weights were changed" in str(caught.value)
    assert f"(training rows {broken})" in str(caught.value)
    assert "--resume auto goes on after step 2" in str(caught.value)


def test_a_step_that_is_left_out_costs_nothing_else(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    poison_loss(monkeypatch, {5, 6, 9})
    lines = run_job(sft(paths, tmp_path / "out", "--on_nan skip"))
    assert [line.get("skipped_steps") for line in lines] == [None, 0, 0, 1, 1, 2, 2, 2, 2]
    assert [("loss" in line) for line in lines] == [False, True, True, False, True, False, True, True, True]
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]
    # the schedule stands still as well
    assert lines[4]["learning_rate"] == pytest.approx(5e-3 * (1 + math.cos(math.pi * 3 / 8)))
    assert "a step is left out: the training loss became NaN or infinite at step 3" in capfd.readouterr().out


def test_too_many_in_a_row_end_the_run(paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    poison_loss(monkeypatch, set(range(5, 99)))
    with pytest.raises(TrainingFault, match=r"last 3 steps were all left out.*--resume auto goes on after step 4"):
        run_job(sft(paths, tmp_path / "out", "--on_nan skip --max_skipped_steps 3"))


def test_a_broken_weight_is_named_and_ends_the_run_at_once(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = OfflineSteps.update

    def update(steps: OfflineSteps, step: int) -> dict[str, float]:
        if step == 4:
            with torch.no_grad():
                steps._engine.module.model.norm.weight[3] = torch.inf
        return original(steps, step)

    monkeypatch.setattr(OfflineSteps, "update", update)
    with pytest.raises(TrainingFault, match=r"step 4 .*the weight model: model.norm.weight is broken itself, --resume"):
        run_job(sft(paths, tmp_path / "out", "--on_nan skip"))


def test_a_broken_reward_is_reported_with_its_row(paths: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(TrainingFault, match=r"the reward became NaN .* at step 2 on rank 0.*\(training rows \d+\)"):
        run_job(job("ppo", paths, tmp_path / "out"), reward_source=RewardOfLength({2}))


def test_ppo_steps_with_broken_rewards_are_left_out(paths: dict[str, str], tmp_path: Path) -> None:
    extra = "--on_nan skip --generation_batches 2 --eval_steps 2"
    lines = run_job(job("ppo", paths, tmp_path / "out", extra), reward_source=RewardOfLength({3, 10}))
    # batch 1 is the first evaluation; step 1 then has the second batch of its two broken
    assert [line.get("skipped_steps") for line in lines] == [None, 1, 1, 1, 2, 2]
    assert math.isfinite(lines[-1]["actor_loss"])


@pytest.mark.parametrize("stages", ["", "--actor_zero_stage 3 --enable_zero3_generation_gather false"])
def test_a_broken_head_is_noticed_while_sampling(
    stages: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DeepSpeedPPOTrainer.generate_experience

    def generate(trainer: DeepSpeedPPOTrainer, *args: Any, step: int) -> Any:
        if step == 3:
            parameter = trainer._engine.actor.module.lm_head.weight
            with torch.no_grad():
                getattr(parameter, "ds_tensor", parameter).view(-1)[5] = torch.nan
        return original(trainer, *args, step=step)

    monkeypatch.setattr(DeepSpeedPPOTrainer, "generate_experience", generate)
    with pytest.raises(TrainingFault) as caught:
        run_job(job("ppo", paths, tmp_path / "out", f"--on_nan skip {stages}"))
    text = str(caught.value)
    assert "the logits while sampling became NaN or infinite at step 3 on rank 0" in text
    assert "the weight actor: lm_head.weight is broken itself, --resume auto goes on after step 2" in text


@pytest.mark.parametrize("step", ["ppo", "wpr"])
def test_a_broken_reference_is_noticed_before_any_penalty_is_charged(
    step: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = DeepSpeedPPOTrainer.generate_experience

    def generate(trainer: DeepSpeedPPOTrainer, *args: Any, step: int) -> Any:
        if step == 2:
            with torch.no_grad():
                trainer._engine.reference.lm_head.weight[5] = torch.nan
        return original(trainer, *args, step=step)

    monkeypatch.setattr(DeepSpeedPPOTrainer, "generate_experience", generate)
    arguments = job("ppo", paths, tmp_path / "out").arguments
    with pytest.raises(
        TrainingFault, match=r"the reference's log-probabilities of the answers became NaN .* at step 2"
    ):
        run_job(Job(step, arguments))

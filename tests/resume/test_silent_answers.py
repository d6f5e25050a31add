"""Steps whose answers teach nothing change nothing, on all ranks together, and are not repeated for ever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.errors import TrainingFault
from dschat.rlhf.experience import Rollout
from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from soak.forks import Forks, weights
from soak.runs import job
from tests.resume.mutations import SILENT_STEPS, saying
from toys.jobs import read_metrics, run_job
from toys.tokenizers import make_tokenizer

EOS = int(make_tokenizer().eos_token_id)
EMPTY = ([EOS], [EOS, EOS, EOS], [EOS, 50, 51])


def answer_from(first: int, answer: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Give every answer from step `first` on these tokens."""
    original = DeepSpeedPPOTrainer.generate_experience

    def generate(trainer: DeepSpeedPPOTrainer, *args: Any, step: int) -> Any:
        with saying(trainer, answer if step >= first else None):
            return original(trainer, *args, step=step)

    monkeypatch.setattr(DeepSpeedPPOTrainer, "generate_experience", generate)


@pytest.mark.parametrize("answer", EMPTY, ids=str)
def test_an_sft_model_that_answers_nothing_ends_the_run_with_that_advice(
    answer: list[int], paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    process_group: torch.device, capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    answer_from(1, answer, monkeypatch)
    with pytest.raises(TrainingFault) as caught:
        run_job(job("ppo", paths, tmp_path / "out", "--max_skipped_steps 2"))
    text = str(caught.value)
    assert "all 8 answers of step 2 are empty: each ends before it says anything; the last 2 steps were all" in text
    assert "the SFT model answers nothing; see what it writes (chat.py" in text
    assert "train step 1 longer" in text
    assert "\n" not in text
    printed = capfd.readouterr().out
    assert "WARNING a step is left out: all 8 answers of step 1 are empty" in printed
    (line,) = read_metrics(tmp_path / "out")
    assert (line["skipped_steps"], line["usable_share"], line["reward"]) == (1, 0.0, None)
    assert "actor_loss" not in line


def test_a_policy_that_falls_silent_is_told_apart_from_a_silent_sft_model(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_group: torch.device
) -> None:
    answer_from(3, [EOS], monkeypatch)
    with pytest.raises(TrainingFault) as caught:
        run_job(job("ppo", paths, tmp_path / "out", "--max_skipped_steps 2"))
    assert "the policy has unlearned to answer; go back with a lower --actor_learning_rate" in str(caught.value)
    assert "--resume auto goes on after step 3" in str(caught.value)


def test_answers_of_one_token_are_learned_from(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, process_group: torch.device
) -> None:
    answer_from(1, [60], monkeypatch)
    lines = run_job(job("ppo", paths, tmp_path / "out", "--max_steps 3"))
    assert [(line["skipped_steps"], line["usable_share"], line["response_length"]) for line in lines] == [(0, 1, 1)] * 3
    assert len(set(weights(tmp_path / "out").values())) == 6  # actor and critic, another one after each step


class NoScores(RewardSource):
    """A source that cannot score anything, as a sandbox that broke."""

    def score(self, rollout: Rollout) -> SequenceScores:
        """NaN [B]."""
        values = torch.full((len(rollout.records),), torch.nan)
        return SequenceScores(values, unscored=values.isnan())


def test_steps_without_a_single_score_are_left_out_and_end_the_run(
    paths: dict[str, str], tmp_path: Path, process_group: torch.device
) -> None:
    with pytest.raises(
        TrainingFault, match=r"none of the 8 answers of step 5 got a score; the last 5 .*warnings above"
    ):
        run_job(job("ppo", paths, tmp_path / "out"), reward_source=NoScores())


def test_silent_steps_are_left_out_by_both_ranks_and_leave_no_trace(
    forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    rows = "--per_device_generation_batch_size 4 --per_device_training_batch_size 4 --actor_zero_stage 2"
    ended = forks.run(
        job("ppo", paths, out, f"--max_steps 4 {rows}"),
        ranks=2,
        setup="tests.resume.mutations:say_nothing_in_two_steps",
    )
    assert ended.statuses == (0, 0), ended.text
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [line["skipped_steps"] for line in lines] == [0, 1, 2, 2]
    saved = weights(out)
    for role in ("actor", "critic"):
        name = f"step-{{}}/{role}/model.safetensors"
        assert {saved[name.format(step)] for step in SILENT_STEPS} == {saved[name.format(1)]}
        assert saved[name.format(4)] != saved[name.format(1)]
    # the schedule stands still as well
    assert len({line["actor_learning_rate"] for line in lines[:3]}) == 1

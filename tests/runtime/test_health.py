"""Signs of a run that goes wrong, each told once."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
import torch

from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from dschat.runtime.health import BASELINE_STEPS, RunHealth
from toys.jobs import Job, make_folders, ppo_arguments, run_job

USUAL = {"reward": 1.0, "reward_std": 0.5, "response_length": 20.0, "penalty_per_answer": 4.0}


def began(**usual: float) -> RunHealth:
    """A run behind its first steps, whose penalty weighs 0.1."""
    health = RunHealth(penalty_coef=0.1)
    for step in range(1, BASELINE_STEPS + 1):
        health.look(step, USUAL | usual)
    return health


def test_ordinary_ups_and_downs_are_no_sign(caplog: pytest.LogCaptureFixture) -> None:
    health, random_numbers = RunHealth(penalty_coef=0.1), random.Random(0)
    for step in range(1, 500):
        drift = step / 500  # a run that learns: two standard deviations more reward, half the length, a growing penalty
        health.look(step, {
            "reward": 1.0 + drift + random_numbers.gauss(0, 0.2), "reward_std": 0.5 * random_numbers.uniform(0.5, 1.5),
            "response_length": 20 * (1 - drift / 2) * random_numbers.uniform(0.8, 1.2),
            "penalty_per_answer": 20 * drift * random_numbers.uniform(0.5, 1.5),
        })  # fmt: skip
    assert caplog.messages == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"reward": 6.1}, "the mean reward is 6.1 at step 11, it began at 1 with a standard deviation of 0.5: look at"),
        ({"reward": -4.1}, "the mean reward is -4.1 at step 11, it began at 1"),
        ({"penalty_per_answer": 51.0}, "the penalty of an answer is 5.1 at step 11, more than 10 standard deviations"),
        ({"penalty_per_answer": 11.0, "penalty_coef": 0.5}, "the penalty of an answer is 5.5 at step 11"),
        ({"response_length": 3.9}, "answers have 3.9 tokens at step 11, they began with 20.0: the reward may favour"),
    ],
)
def test_each_sign_is_told_once(change: dict[str, float], sentence: str, caplog: pytest.LogCaptureFixture) -> None:
    health = began()
    assert caplog.messages == []
    for step in (11, 12, 13):
        health.look(step, USUAL | change)
    (message,) = caplog.messages
    assert message.startswith(sentence)


def test_just_within_the_limits_is_no_sign(caplog: pytest.LogCaptureFixture) -> None:
    health = began()
    health.look(11, {"reward": 5.9, "reward_std": 9.0, "response_length": 4.1, "penalty_per_answer": 49.0})
    assert caplog.messages == []


def test_steps_that_were_left_out_neither_count_nor_warn(caplog: pytest.LogCaptureFixture) -> None:
    health = RunHealth(penalty_coef=0.1)
    for step in range(1, 30):
        health.look(step, USUAL | {"reward": math.nan})
    health.look(30, {"step_seconds": 1.0})
    assert health.state_dict()["steps"] == 0
    assert caplog.messages == []


def test_equal_rewards_give_no_scale_to_judge_by(caplog: pytest.LogCaptureFixture) -> None:
    health = began(reward=-1.0, reward_std=0.0)  # no program of the first steps compiles
    health.look(11, USUAL)
    assert caplog.messages == []
    health.look(12, USUAL | {"response_length": 1.0})
    assert len(caplog.messages) == 1


def test_a_resumed_run_compares_with_its_own_beginning_and_repeats_no_warning(caplog: pytest.LogCaptureFixture) -> None:
    health = began()
    health.look(11, USUAL | {"reward": 99.0})
    caplog.clear()
    resumed = RunHealth(penalty_coef=0.1)
    resumed.load_state_dict(json.loads(json.dumps(health.state_dict())))
    resumed.look(12, USUAL | {"reward": 99.0})
    assert caplog.messages == []
    resumed.look(13, USUAL | {"response_length": 1.0})
    assert "they began with 20.0" in caplog.messages[0]


class RewardThatExplodes(RewardSource):
    """A thousand times the usual from the twelfth batch on."""

    batches = 0

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B]."""
        self.batches += 1
        score = rollout.responses.float().mean(dim=-1)
        return SequenceScores(score * (1_000 if self.batches >= 12 else 1))


def test_a_run_says_so_in_its_log(
    tmp_path: Path, process_group: torch.device, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = "--max_steps 14 --num_train_epochs 4"
    job = Job("ppo", ppo_arguments(make_folders(tmp_path), tmp_path / "out", extra))
    run_job(job, reward_source=RewardThatExplodes())
    printed = capfd.readouterr().out
    assert printed.count("WARNING the mean reward is ") == 1
    assert " at step 12, it began at " in printed
    assert "look at the answers (--print_answers) before you trust it" in printed

"""PPO teaches a tiny actor what the reward asks for, with every regularizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from toys.jobs import Job, make_folders, ppo_arguments, run_job

LETTER = "e"
STEPS = 25
LEARNING = (
    f"--max_steps {STEPS} --num_train_epochs 50 --actor_learning_rate 1e-2 --critic_learning_rate 1e-2 "
    "--kl_ctl 0.02 --lr_scheduler_type constant --warmup_ratio 0 --per_device_generation_batch_size 32 "
    "--per_device_training_batch_size 16 --temperature 1.0 --sampling_top_k 0 --reward_clip 20"
)
REGULARIZERS = {
    "none": ("ppo", "--f_div none"),
    "rkl": ("ppo", "--f_div rkl"),
    "rkl-low": ("ppo", "--f_div rkl --f_div_low_var"),
    "fkl": ("ppo", "--f_div fkl"),
    "js": ("ppo", "--f_div js"),
    "alpha": ("ppo", "--f_div alpha"),
    "tv": ("ppo", "--f_div tv"),
    "chi": ("ppo", "--f_div chi"),
    "wasserstein": ("wpr", "--top_k 16 --cost_dim 32"),
    "lora": (
        "ppo",
        "--f_div rkl --actor_lora_dim 8 --lora_alpha 16 --only_optimize_lora --actor_lora_learning_rate 1e-2",
    ),
}


# A controller that starts too low and one that starts too high, the target, and the steps of one swing around it.
CONTROLLED = {
    "rkl": ("ppo", "--max_steps 50 --kl_ctl 0.2 --penalty_target 1.0 --penalty_horizon 64", 1.0, 15),
    "wasserstein": (
        "wpr",
        "--max_steps 70 --kl_ctl 2 --penalty_target 0.5 --penalty_horizon 64 --transport capped --debias "
        "--epsilon 0.3 --top_k 16 --cost_dim 32",
        0.5,
        30,
    ),
}


class LetterReward(RewardSource):
    """How often one letter occurs."""

    def score(self, rollout: Rollout) -> SequenceScores:
        return SequenceScores(torch.tensor([float(answer.count(LETTER)) for answer in rollout.answers]))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("name", REGULARIZERS)
def test_mean_count_at_least_doubles(name: str, paths: dict[str, str], tmp_path: Path) -> None:
    step, flags = REGULARIZERS[name]
    job = Job(step, ppo_arguments(paths, tmp_path, f"{LEARNING} {flags}"))
    rewards = [line["reward"] for line in run_job(job, reward_source=LetterReward())]
    first, last = sum(rewards[:3]) / 3, sum(rewards[-3:]) / 3
    assert first > 0
    assert last >= 2 * first


@pytest.mark.parametrize("name", CONTROLLED)
def test_the_adaptive_coefficient_keeps_the_penalty_at_its_target(
    name: str, paths: dict[str, str], tmp_path: Path
) -> None:
    step, flags, target, swing = CONTROLLED[name]
    job = Job(step, ppo_arguments(paths, tmp_path, f"{LEARNING} --actor_learning_rate 5e-3 {flags}"))
    lines = run_job(job, reward_source=LetterReward())
    penalties = [line["penalty"] for line in lines]
    assert sum(penalties[-swing:]) / swing == pytest.approx(target, rel=0.4)
    # without it this reward drives the policy far beyond
    assert max(penalties) > 1.5 * target
    # over the same swing, in which the reward goes up and down with the penalty
    assert sum(line["reward"] for line in lines[-swing:]) / swing > 1.5 * lines[0]["reward"]

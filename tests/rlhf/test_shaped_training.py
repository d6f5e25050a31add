"""Each option of PPO in whole runs: what it changes, and that it is off unless asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from tests.rlhf.test_ppo_trainer import ANSWERS, BETA, CLIP, CPU, PROMPTS, Case
from tests.rlhf.test_unsupervised import answer_loss, gradient_norm
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times

STEPS = 4
ENTROPY_COEF = 0.7
COMMON = (
    f"--max_steps {STEPS} --kl_ctl 0.1 --ppo_epochs 2 --per_device_training_batch_size 4 --warmup_ratio 0 "
    "--lr_scheduler_type constant --actor_zero_stage 1 --critic_zero_stage 1 "
)


class LongAnswers(RewardSource):
    """Ten times the number of characters."""

    def score(self, rollout: Rollout) -> SequenceScores:
        return SequenceScores(torch.tensor([10.0 * len(answer) for answer in rollout.answers]))


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def plain(paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """The run without any option."""
    return train(paths, tmp_path_factory.mktemp("plain"), "")


def train(
    paths: dict[str, str], folder: Path, flags: str, *, step: str = "ppo", **options: Any
) -> list[dict[str, Any]]:
    job = Job(step, ppo_arguments(paths, folder / "run", COMMON + flags))
    lines = run_job(job, **options)
    assert all(line["actor_loss"] is not None and line["critic_loss"] is not None for line in lines)
    return lines


def test_options_that_change_nothing_leave_the_run_as_it_is(
    plain: list[dict[str, Any]], paths: dict[str, str], tmp_path: Path
) -> None:
    flags = "--dual_clip 1e9 --penalty_clip 1e9 --value_loss_coef 1 --entropy_coef 0 --missing_eos_penalty 0"
    assert without_times(train(paths, tmp_path, flags)) == without_times(plain)


@pytest.mark.parametrize(
    "flags",
    [
        "--kl_estimator k2", "--kl_estimator k3", "--penalty_clip 1e-4", "--missing_eos_penalty 2",
        "--whiten_advantages", "--normalize_rewards", "--penalty_target 0.01 --penalty_horizon 10",
        "--entropy_coef 0.5", "--value_loss_coef 0.01", "--early_stop_kl 1e-7",
        "--dual_clip 1.0001",
    ],
)  # fmt: skip
def test_each_option_changes_the_run(
    flags: str, plain: list[dict[str, Any]], paths: dict[str, str], tmp_path: Path
) -> None:
    lines = train(paths, tmp_path, flags)
    names = ("actor_loss", "critic_loss", "policy_change", "value")
    assert any(lines[-1][name] != plain[-1][name] for name in names)


def test_value_loss_coefficient_scales_the_critics_gradient_alone(paths: dict[str, str], tmp_path: Path) -> None:
    once = "--ppo_epochs 1 --max_steps 1 --per_device_training_batch_size 8"
    first, whole = (train(paths, tmp_path / c, f"--value_loss_coef {c} {once}")[0] for c in ("0.5", "1"))
    assert first["critic_grad_norm"] == pytest.approx(whole["critic_grad_norm"] / 2, rel=1e-4)
    assert first["critic_loss"] == whole["critic_loss"]
    assert first["actor_grad_norm"] == whole["actor_grad_norm"]


def test_entropy_bonus_raises_the_entropy(paths: dict[str, str], tmp_path: Path) -> None:
    small, large = (train(paths, tmp_path / c, f"--entropy_coef {c} --max_steps 6") for c in ("1e-6", "10"))
    assert small[0]["entropy"] == pytest.approx(large[0]["entropy"], rel=0.05)
    assert large[-1]["entropy"] > small[-1]["entropy"] + 0.1


class EntropyCase(Case):
    """The case of the trainer's test, with an entropy bonus."""

    @staticmethod
    def _config(paths: dict[str, str], folder: Path) -> PPOConfig:
        extra = (
            f"--kl_ctl {BETA} --reward_clip {CLIP} --gamma 0.98 --lam 0.9 --per_device_generation_batch_size 4 "
            "--per_device_training_batch_size 2 --gradient_accumulation_steps 2 --actor_zero_stage 1 "
            f"--entropy_coef {ENTROPY_COEF}"
        )
        return parse_ppo_config(ppo_arguments(paths, folder / "out", extra), regularizer=DivergenceConfig)

    def log_distributions(self, number: int) -> Tensor:
        """What the policy says before each token of an answer, [R, V] float64, differentiable."""
        prompt, answer = PROMPTS[number], ANSWERS[number]
        return self.policy(input_ids=torch.tensor([prompt + answer])).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]


def test_entropy_bonus_and_measured_change_are_those_of_the_formulas(
    tmp_path: Path, process_group: torch.device
) -> None:
    case = EntropyCase(tmp_path, "pad")
    case.policy.requires_grad_(True)
    trainer = case.trainer()
    made = trainer.generate_experience(case.prompts(), step=1)
    before = {number: case.log_distributions(number) for number in (0, 1, 3)}
    entropy = torch.cat([-(row.exp() * row).sum(dim=-1) for row in before.values()]).mean()
    expected = gradient_norm(case, answer_loss(case) - ENTROPY_COEF * entropy)
    without = gradient_norm(case, answer_loss(case))
    metrics = (made.sums + trainer.train_rlhf([made.experience], step=1).sums).means(CPU)
    assert metrics["entropy"] == pytest.approx(entropy.item(), rel=1e-5)
    assert metrics["actor_grad_norm"] == pytest.approx(expected, rel=2e-4)
    assert expected != pytest.approx(without, rel=1e-2)
    assert metrics["policy_change"] == pytest.approx(0.0, abs=1e-6)
    # the second update finds the policy that the first one made
    case.policy.load_state_dict(case.engine.actor.module.state_dict())
    second = trainer.train_rlhf([made.experience], step=2).sums.means(CPU)
    change = []
    for number, row in before.items():
        tokens = torch.tensor(ANSWERS[number])[:, None]
        log_ratio = (case.log_distributions(number) - row).gather(-1, tokens)
        change.append(log_ratio.exp() - 1 - log_ratio)
    assert second["policy_change"] == pytest.approx(torch.cat(change).mean().item(), rel=1e-2)


def test_whitened_advantages_have_unit_scale(paths: dict[str, str], tmp_path: Path) -> None:
    # before the first update the ratio is 1: the loss is minus the mean advantage, which is 0 after whitening
    flags = "--ppo_epochs 1 --max_steps 1 --per_device_training_batch_size 8"
    whitened, raw = train(paths, tmp_path / "w", f"--whiten_advantages {flags}"), train(paths, tmp_path / "r", flags)
    assert abs(whitened[0]["actor_loss"]) < 1e-5
    assert whitened[0]["advantage"] == raw[0]["advantage"] != 0


@pytest.mark.parametrize("step", ["ppo", "wpr"])
def test_coefficient_rises_while_the_penalty_is_above_its_target(
    step: str, paths: dict[str, str], tmp_path: Path
) -> None:
    extra = "--kl_estimator k3" if step == "ppo" else "--transport capped --debias --epsilon 0.3 --top_k 16"
    flags = f"--penalty_target 1e-9 --penalty_horizon 16 {extra}"
    lines = train(paths, tmp_path, flags, step=step)
    coefficients = [line["penalty_coef"] for line in lines]
    assert coefficients[0] == 0.1
    # in the first step the policy is the reference and its penalty 0, or rounding
    answers = 8 * lines[1]["usable_share"]
    assert coefficients[2] == pytest.approx(coefficients[1] * (1 + 0.2 * answers / 16))
    assert coefficients[3] > coefficients[2]


def test_normalized_scores_are_rarely_clipped(paths: dict[str, str], tmp_path: Path) -> None:
    lines = train(paths, tmp_path, "--normalize_rewards", reward_source=LongAnswers())
    assert lines[0]["clipped_reward_share"] > 0.9
    assert all(line["clipped_reward_share"] < 0.3 for line in lines[2:])
    assert lines[1]["running_reward_mean"] == pytest.approx(lines[0]["reward"])
    assert lines[1]["running_reward_std"] == pytest.approx(lines[0]["reward_std"])


def test_a_policy_that_moved_too_far_leaves_its_answers(paths: dict[str, str], tmp_path: Path) -> None:
    flags = "--ppo_epochs 3"
    stopped, free = (train(paths, tmp_path / limit, f"{flags} --early_stop_kl {limit}") for limit in ("1e-9", "1e9"))
    # the first update of a step measures no change, the second one that of the first
    assert all(line["updates"] == 2 for line in stopped)
    assert all(line["updates"] == 6 for line in free)
    assert stopped[0]["policy_change"] < free[0]["policy_change"]

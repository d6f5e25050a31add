"""PPO-ptx: the gradient of both losses against plain autograd, and what a coefficient of zero means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.data.plain_text import TextBlocks
from tests.rlhf.test_ppo_trainer import ANSWERS, BETA, CLIP, CPU, PROMPTS, Case
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times, write_text

COEFFICIENT = 0.7
SEED = 1234
TEXT = TextBlocks([{"input_ids": [(3 * row + 5 * t) % 90 + 5 for t in range(9)]} for row in range(7)], SEED)


class TextCase(Case):
    """The case of the trainer's test, with text mixed in."""

    @staticmethod
    def _config(paths: dict[str, str], folder: Path) -> PPOConfig:
        extra = (
            f"--kl_ctl {BETA} --reward_clip {CLIP} --gamma 0.98 --lam 0.9 --per_device_generation_batch_size 4 "
            "--per_device_training_batch_size 2 --gradient_accumulation_steps 2 --actor_zero_stage 1 "
            f"--unsupervised_dataset_name given --unsup_coef {COEFFICIENT}"
        )
        return parse_ppo_config(ppo_arguments(paths, folder / "out", extra), regularizer=DivergenceConfig)

    text = TEXT


def text_loss(case: Case, rows: Tensor) -> Tensor:
    """Mean negative log-likelihood of every token but the first, float64."""
    logits = case.policy(input_ids=rows).logits[:, :-1]
    return F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def answer_loss(case: Case) -> Tensor:
    """The clipped surrogate's mean over answer tokens at the policy that sampled, where nothing is clipped yet."""
    losses, tokens = torch.zeros((), dtype=torch.float64), 0
    for number in (0, 1, 3):
        row = case.row(number)
        ids = torch.tensor([PROMPTS[number] + ANSWERS[number]])
        log_probs = case.policy(input_ids=ids).logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None])[0, :, 0]
        log_probs = log_probs[-row["length"] :]
        losses = losses - ((log_probs - log_probs.detach()).exp() * torch.tensor(row["result"].advantages)).sum()
        tokens += row["length"]
    return losses / tokens


def gradient_norm(case: Case, loss: Tensor) -> float:
    gradients = torch.autograd.grad(loss, list(case.policy.parameters()))
    return torch.stack([gradient.norm() for gradient in gradients]).norm().item()


def test_the_actors_gradient_is_that_of_both_losses(tmp_path: Path, process_group: torch.device) -> None:
    case = TextCase(tmp_path, "pad")
    case.policy.requires_grad_(True)
    trainer = case.trainer()
    experience = trainer.generate_experience(case.prompts(), step=1).experience
    metrics = trainer.train_rlhf([experience], step=1).sums.means(CPU)
    text = text_loss(case, TEXT.rows(0, 4))  # two micro-batches of two rows
    assert metrics["unsupervised_loss"] == pytest.approx(text.item(), rel=1e-5)
    both = gradient_norm(case, answer_loss(case) + COEFFICIENT * text)
    assert metrics["actor_grad_norm"] == pytest.approx(both, rel=2e-4)
    # neither part is small beside the other
    of_answers = gradient_norm(case, answer_loss(case))
    assert 0.1 < of_answers / gradient_norm(case, COEFFICIENT * text_loss(case, TEXT.rows(0, 4))) < 10
    # one update per step, not two, and the next one takes the next rows
    assert case.engine.actor.global_steps == 1
    case.policy.load_state_dict(case.engine.actor.module.state_dict())
    second = trainer.train_rlhf([experience], step=2).sums.means(CPU)
    assert second["unsupervised_loss"] == pytest.approx(text_loss(case, TEXT.rows(4, 4)).item(), rel=1e-4)
    assert case.engine.actor.global_steps == 2


def test_a_coefficient_of_zero_is_no_text_bit_for_bit(tmp_path: Path, process_group: torch.device) -> None:
    paths, runs = make_folders(tmp_path), {}
    text = f"--unsupervised_dataset_name {write_text(tmp_path)} --unsup_coef"
    for name, extra in {"none": "", "zero": f"{text} 0", "some": f"{text} 1"}.items():
        lines = run_job(Job("ppo", ppo_arguments(paths, tmp_path / name, f"--actor_zero_stage 2 {extra}")))
        runs[name] = without_times(lines)
    assert runs["none"] == runs["zero"]
    assert "unsupervised_loss" not in runs["zero"][0]
    losses = [line["unsupervised_loss"] for line in runs["some"]]
    assert losses[-1] < losses[0]
    assert runs["some"][0]["reward"] == runs["none"][0]["reward"]

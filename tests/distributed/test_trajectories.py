"""The same numbers whatever the ZeRO stage, the number of ranks, or how a batch is cut into micro-batches."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from tests.launch import launch
from toys.jobs import Job, make_folders, ppo_arguments, read_metrics, run_job, supervised_arguments, write_text

TOLERANCE = 2e-4
"""Relative, float32, after at most 5 optimizer steps; sums are taken in another order on every side."""

LORA = "--lora_dim 4 --lora_alpha 8 --only_optimize_lora --lora_learning_rate 1e-2 "
PPO_LORA = (
    "--actor_lora_dim 4 --critic_lora_dim 4 --lora_alpha 8 --only_optimize_lora --actor_lora_learning_rate 1e-2 "
    "--critic_lora_learning_rate 1e-2 --top_k 8 --cost_dim 16 "
)
EMA = "--enable_ema --ema_decay 0.6 --save_steps 1 "
PPO_CUT = "--per_device_generation_batch_size {gen} --per_device_training_batch_size {train} "
COMPARED = {
    "sft": ("loss", "eval_loss", "grad_norm"),
    "reward": ("loss", "accuracy", "eval_loss", "grad_norm"),
    "ppo": ("reward", "penalty", "actor_loss", "critic_loss", "advantage", "return", "actor_grad_norm"),
    "wpr": ("reward", "penalty", "actor_loss", "critic_loss", "advantage", "return", "actor_grad_norm"),
    "macro": ("reward", "advantage", "return", "actor_loss", "critic_loss", "segments", "segment_length"),
    "text": ("unsupervised_loss", "reward", "actor_loss", "critic_loss", "actor_grad_norm"),
}
COMPARED["shaped"] = (
    *COMPARED["ppo"], "penalty_coef", "running_reward_mean", "running_reward_std", "entropy", "updates",
    "policy_change",
)  # fmt: skip
MACRO = "--termination_condition randomized --repeat_times 1 --value_function position --gamma 0.9 "
SHAPED = (
    "--whiten_advantages --normalize_rewards --missing_eos_penalty 0.5 --penalty_target 0.01 --penalty_horizon 20 "
    "--entropy_coef 0.01 --value_loss_coef 0.5 --dual_clip 3 --kl_estimator k3 --penalty_clip 1 --ppo_epochs 3 "
    "--early_stop_kl 5e-3 --warmup_ratio 0 "
)


def jobs_on_two_ranks(paths: dict[str, str], folder: Path) -> dict[str, Job]:
    """Global batches of 8 (steps 1, 2) and 16 (step 3) rows on two ranks."""
    jobs = {}
    for step, model in (("sft", "sft"), ("reward", "sft")):
        for stage in (1, 2, 3):
            extra = f"--zero_stage {stage} --per_device_train_batch_size 4 --gradient_checkpointing"
            name = f"{step}-2x4-z{stage}"
            jobs[name] = Job(step, supervised_arguments(paths, model, folder / name, extra))
        name = f"{step}-2x1x4-z2"
        extra = "--zero_stage 2 --per_device_train_batch_size 1 --gradient_accumulation_steps 4"
        jobs[name] = Job(step, supervised_arguments(paths, model, folder / name, extra))
    for actor, critic in ((1, 1), (2, 3), (3, 2), (3, 3)):
        extra = f"--actor_zero_stage {actor} --critic_zero_stage {critic} " + PPO_CUT.format(gen=8, train=8)
        extra += EMA if actor != critic else ""
        name = f"ppo-2x8-z{actor}{critic}"
        jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "ppo-2x2x4-z22"
    extra = "--actor_zero_stage 2 --critic_zero_stage 2 --gradient_accumulation_steps 4 --offload "
    extra += PPO_CUT.format(gen=2, train=2)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    for actor, critic in ((0, 1), (2, 3)):
        extra = f"--actor_zero_stage {actor} --critic_zero_stage {critic} --max_tokens_per_micro_batch 48 "
        extra += PPO_CUT.format(gen=8, train=8)
        name = f"ppo-2x8-by-tokens-z{actor}{critic}"
        jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "wpr-2x8-z33"
    extra = "--actor_zero_stage 3 --critic_zero_stage 3 --top_k 8 --cost_dim 16 " + PPO_CUT.format(gen=8, train=8)
    jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "wpr-silent-2x8-z33"
    jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, extra), fixed_answers=True, second_half_silent=True)
    name = "macro-2x8-z33"
    extra = "--actor_zero_stage 3 --critic_zero_stage 3 " + MACRO + PPO_CUT.format(gen=8, train=8)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "shaped-2x8-z23"
    extra = "--actor_zero_stage 2 --critic_zero_stage 3 " + SHAPED + PPO_CUT.format(gen=8, train=8)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "sampled-z33"
    extra = f"--zero_stage 3 --per_device_train_batch_size 4 --gradient_checkpointing {LORA}"
    jobs["sft-lora-2x4-z3"] = Job("sft", supervised_arguments(paths, "sft", folder / "sft-lora-2x4-z3", extra))
    extra = "--actor_zero_stage 3 --critic_zero_stage 3 " + PPO_CUT.format(gen=8, train=8)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra + "--eval_steps 2"))
    for actor, critic in ((2, 1), (3, 3)):
        extra = f"--actor_zero_stage {actor} --critic_zero_stage {critic} " + PPO_CUT.format(gen=8, train=8)
        name = f"wpr-lora-2x8-z{actor}{critic}"
        jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, PPO_LORA + EMA + extra), fixed_answers=True)
    name = "text-2x8-z33"
    extra += f"--unsupervised_dataset_name {folder / 'text.txt'} --unsup_coef 0.5"
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    return jobs


def jobs_on_one_rank(paths: dict[str, str], folder: Path) -> dict[str, Job]:
    """The same global batches on one rank, whole and in four micro-batches."""
    jobs = {}
    for step in ("sft", "reward"):
        for name, extra in {
            f"{step}-1x8-z0": "--zero_stage 0 --per_device_train_batch_size 8",
            f"{step}-1x2x4-z2": "--zero_stage 2 --per_device_train_batch_size 2 --gradient_accumulation_steps 4",
        }.items():
            jobs[name] = Job(step, supervised_arguments(paths, "sft", folder / name, extra))
    for name, extra in {
        "ppo-1x16-z00": PPO_CUT.format(gen=16, train=16),
        "ppo-1x4x4-z12": "--actor_zero_stage 1 --critic_zero_stage 2 --gradient_accumulation_steps 4 "
        + EMA
        + PPO_CUT.format(gen=4, train=4),
        "ppo-1x16x4-z22": "--actor_zero_stage 2 --critic_zero_stage 2 --gradient_accumulation_steps 4 "
        + PPO_CUT.format(gen=16, train=4),
    }.items():
        jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "wpr-1x16-z00"
    extra = "--top_k 8 --cost_dim 16 " + PPO_CUT.format(gen=16, train=16)
    jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "wpr-silent-1x16-z00"
    jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, extra), fixed_answers=True, second_half_silent=True)
    name = "macro-1x16-z00"
    extra = MACRO + PPO_CUT.format(gen=16, train=16)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    name = "shaped-1x4x4-z11"
    extra = "--gradient_accumulation_steps 4 --actor_zero_stage 1 --critic_zero_stage 1 "
    extra += SHAPED + PPO_CUT.format(gen=4, train=4)
    jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    extra = f"--per_device_train_batch_size 8 {LORA}"
    jobs["sft-lora-1x8-z0"] = Job("sft", supervised_arguments(paths, "sft", folder / "sft-lora-1x8-z0", extra))
    name, extra = "wpr-lora-1x16-z00", PPO_LORA + PPO_CUT.format(gen=16, train=16)
    jobs[name] = Job("wpr", ppo_arguments(paths, folder / name, extra), fixed_answers=True)
    text = f"--unsupervised_dataset_name {write_text(folder)} --unsup_coef 0.5 "
    for name, extra in {
        "text-1x16-z00": PPO_CUT.format(gen=16, train=16),
        "text-1x4x4-z22": "--actor_zero_stage 2 --critic_zero_stage 2 --gradient_accumulation_steps 4 --offload "
        + PPO_CUT.format(gen=4, train=4),
    }.items():
        jobs[name] = Job("ppo", ppo_arguments(paths, folder / name, text + extra), fixed_answers=True)
    return jobs


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> Path:
    """All runs, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs")
    paths = make_folders(folder)
    for job in jobs_on_one_rank(paths, folder).values():
        run_job(job)
    jobs = jobs_on_two_ranks(paths, folder)
    file = folder / "jobs.json"
    file.write_text(json.dumps([dataclasses.asdict(job) for job in jobs.values()]))
    finished = launch(Path(__file__).parent / "run_jobs.py", str(file))
    assert finished.returncode == 0, finished.stdout[-4000:] + finished.stderr[-4000:]
    return folder


def columns(folder: Path, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [{name: line[name] for name in names if name in line} for line in read_metrics(folder)]


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (f"{step}-1x8-z0", f"{step}-{other}")
        for step in ("sft", "reward")
        for other in ("1x2x4-z2", "2x4-z1", "2x4-z2", "2x4-z3", "2x1x4-z2")
    ]
    + [
        ("ppo-1x16-z00", f"ppo-{other}")
        for other in ("1x4x4-z12", "1x16x4-z22", "2x8-z11", "2x8-z23", "2x8-z32", "2x8-z33", "2x2x4-z22")
    ]
    + [("wpr-1x16-z00", "wpr-2x8-z33"), ("wpr-silent-1x16-z00", "wpr-silent-2x8-z33")]
    + [("sft-lora-1x8-z0", "sft-lora-2x4-z3")]
    + [("wpr-lora-1x16-z00", f"wpr-lora-2x8-{stages}") for stages in ("z21", "z33")]
    + [("text-1x16-z00", f"text-{other}") for other in ("1x4x4-z22", "2x8-z33")]
    + [("macro-1x16-z00", "macro-2x8-z33"), ("shaped-1x4x4-z11", "shaped-2x8-z23")],
)
def test_trajectories_agree(left: str, right: str, runs: Path) -> None:
    names = COMPARED[left.split("-")[0]]
    ours, theirs = columns(runs / left, names), columns(runs / right, names)
    assert len(ours) == len(theirs) >= 5
    for step, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
        for name in mine.keys() & other.keys():
            assert mine[name] == pytest.approx(other[name], rel=TOLERANCE, abs=2e-5), f"{name} at line {step}"


@pytest.mark.parametrize("name", ["sft-2x4-z3", "sft-2x4-z2"])
def test_language_models_saved_by_two_ranks_load_with_the_plain_library(name: str, runs: Path) -> None:
    reference = AutoModelForCausalLM.from_pretrained(runs / "sft-1x8-z0")
    again = AutoModelForCausalLM.from_pretrained(runs / name)
    tokenizer = AutoTokenizer.from_pretrained(runs / name)
    ids = tokenizer("red cat sees", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(again(ids).logits, reference(ids).logits, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("run", ["ppo-1x4x4-z12", "ppo-2x8-z23", "ppo-2x8-z32", "wpr-lora-2x8-z21", "wpr-lora-2x8-z33"])
def test_the_saved_average_is_that_of_the_actors_saved_after_each_step(run: str, runs: Path) -> None:
    # of an adapted actor the matrices A and B are averaged, not their product
    part = "adapter/adapter_model.safetensors" if "lora" in run else "model.safetensors"
    actors, averages = (
        [load_file(runs / run / f"step-{step}/{role}/{part}") for step in range(1, 6)]
        for role in ("actor", "actor_ema")
    )
    if "lora" not in run:
        actors.insert(0, load_file(runs / "sft/model.safetensors"))
        averages.insert(0, actors[0])
    for now in range(1, len(actors)):
        assert actors[now].keys() == averages[now].keys()
        for name, weight in actors[now].items():
            expected = 0.6 * averages[now - 1][name] + 0.4 * weight
            torch.testing.assert_close(averages[now][name], expected, atol=1e-6, rtol=1e-5)
    assert (runs / run / "actor_ema" / part).is_file()


@pytest.mark.parametrize(("one", "two"), [("ppo-1x16-z00", "ppo-2x8-z33"), ("wpr-lora-1x16-z00", "wpr-lora-2x8-z33")])
def test_actor_and_critic_saved_under_zero_3_equal_those_of_one_rank(one: str, two: str, runs: Path) -> None:
    ids = torch.tensor([[5, 6, 7, 8]])
    for role, loader in (("actor", AutoModelForCausalLM), ("critic", AutoModelForSequenceClassification)):
        ours, theirs = (loader.from_pretrained(runs / run / role).eval() for run in (one, two))
        with torch.no_grad():
            torch.testing.assert_close(ours(ids).logits, theirs(ids).logits, atol=2e-3, rtol=2e-3)
        assert (runs / two / "step-5" / role / "model.safetensors").is_file()


def test_a_rank_without_a_usable_answer_takes_part_with_weight_zero(runs: Path) -> None:
    # the second of the two ranks had nothing to say in any step; the comparison above has the numbers
    lines = read_metrics(runs / "wpr-silent-2x8-z33")
    assert len(lines) == 5
    assert all(line["usable_share"] <= 0.5 for line in lines)
    assert all(line["actor_grad_norm"] > 0 for line in lines)


def test_ranks_leave_the_answers_of_a_step_together(runs: Path) -> None:
    updates = [line["updates"] for line in read_metrics(runs / "shaped-2x8-z23")]
    assert set(updates) & {2.0}, "no step was left early"
    assert set(updates) & {3.0}, "every step was left early"


def test_sampling_under_zero_3_trains_and_evaluates(runs: Path) -> None:
    lines = read_metrics(runs / "sampled-z33")
    assert [line["step"] for line in lines] == list(range(6))
    assert all("eval_reward" in lines[step] for step in (0, 2, 4, 5))
    # at the first step the policy is the reference
    assert lines[1]["log_ratio"] == pytest.approx(0.0, abs=1e-6)
    assert lines[1]["policy_change"] == pytest.approx(0.0, abs=1e-6)
    assert lines[5]["usable_share"] > 0.5

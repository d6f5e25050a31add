"""`--dry_run`: everything is tried once, and nothing is left behind."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from dschat.config.regularizers import WassersteinConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from dschat.errors import TrainingFault
from dschat.offline.reward import run_reward_training
from dschat.offline.sft import run_sft
from dschat.rlhf.run_ppo import run_ppo
from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


def test_dry_run_makes_a_step_and_leaves_nothing(
    paths: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extra = "--dry_run --per_device_generation_batch_size 4 --per_device_training_batch_size 4"
    config = parse_ppo_config(
        ppo_arguments(paths, tmp_path / "out", f"{extra} --gradient_accumulation_steps 2"),
        regularizer=WassersteinConfig,
    )
    run_ppo(config)
    printed = capfd.readouterr().out
    assert "a PPO step samples 8 answers on 1 device(s) (2 rollout batches of 4 each) and makes 1 optimizer" in printed
    for role in ("actor", "reference", "critic", "reward model"):
        assert f"estimated: {role}: 0.0 M parameters" in printed
        assert re.search(rf"measured: {role}: 0\.[1-9] MiB of weights.* loading it took [\d.]+ MiB at most", printed)
    assert "dry run: one step with answers of 4 tokens was made, saved and deleted" in printed
    assert [path.name for path in tmp_path.iterdir()] == []


@pytest.mark.parametrize("step", ["sft", "reward"])
def test_dry_run_of_a_run_that_can_go_on_leaves_it_as_it_was(
    step: str, paths: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = supervised_arguments(paths, "sft", tmp_path / "out", "--max_steps 2")
    run_job(Job(step, words))
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    parse, train = {"sft": (parse_sft_config, run_sft), "reward": (parse_reward_config, run_reward_training)}[step]
    train(parse([*words, "--resume", "auto", "--dry_run"]))
    printed = capfd.readouterr().out
    assert "the run would go on after step 2" in printed
    assert "dry run: one step was made, saved and deleted" in printed
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_dry_run_notices_what_only_a_step_shows(paths: dict[str, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(paths["sft"], broken)
    model = AutoModelForCausalLM.from_pretrained(broken)
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    model.save_pretrained(broken)
    words = supervised_arguments(paths, "sft", tmp_path / "out", f"--model_name_or_path {broken} --dry_run")
    with pytest.raises(TrainingFault, match="NaN or infinite at step 1"):
        run_sft(parse_sft_config(words))
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]

"""All three steps for every supported family of models, in 16 bits and with gradient checkpointing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments
from toys.models import FAMILIES

WPR = "--top_k 8 --cost_dim 16 --actor_gradient_checkpointing --critic_gradient_checkpointing --max_steps 2"


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_reward_model_and_ppo_run_on_each_others_folders(
    family: str, tmp_path: Path, process_group: torch.device
) -> None:
    paths = make_folders(tmp_path, family=family)
    short = "--max_steps 2 --dtype bf16 --zero_stage 2 --gradient_checkpointing --dropout 0"
    run_job(Job("sft", supervised_arguments(paths, "sft", tmp_path / "1", short)))
    paths |= {"sft": str(tmp_path / "1")}
    run_job(Job("reward", supervised_arguments(paths, "sft", tmp_path / "2", short)))
    paths |= {"reward": str(tmp_path / "2")}
    lines = run_job(Job("wpr", ppo_arguments(paths, tmp_path / "3", f"{WPR} --dtype bf16 --actor_zero_stage 2")))
    assert [line["step"] for line in lines] == [1, 2]
    assert lines[0]["log_ratio"] == pytest.approx(0.0, abs=1e-3)
    actor = AutoModelForCausalLM.from_pretrained(tmp_path / "3/actor")
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "3/critic")
    assert actor.dtype == critic.dtype == torch.bfloat16
    ids = AutoTokenizer.from_pretrained(tmp_path / "3/actor")("red cat", return_tensors="pt").input_ids
    with torch.no_grad():
        assert actor(ids).logits.isfinite().all()
        assert critic(ids).logits.shape == (1, 1)

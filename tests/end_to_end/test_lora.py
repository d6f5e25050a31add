"""The three steps with LoRA: on each other's folders, unharmed by a save, with one copy of the frozen weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from dschat.engines import Role
from dschat.offline import setup as supervised_setup
from dschat.rlhf import plan as ppo_plan
from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments, without_times

ADAPTED = "--lora_dim 4 --lora_alpha 8 --only_optimize_lora --lora_learning_rate 1e-2"
BOTH_ADAPTED = (
    "--actor_lora_dim 4 --critic_lora_dim 4 --lora_alpha 8 --only_optimize_lora --actor_lora_learning_rate 1e-2 "
    "--critic_lora_learning_rate 1e-2"
)


@pytest.mark.parametrize(("family", "stage"), [("llama", 1), ("gemma", 2), ("gpt2", 3)])
def test_adapted_steps_run_on_each_others_folders(
    family: str, stage: int, tmp_path: Path, process_group: torch.device
) -> None:
    paths = make_folders(tmp_path, family=family)
    short = f"--max_steps 3 --dtype bf16 --zero_stage {stage} --gradient_checkpointing --dropout 0 {ADAPTED}"
    lines = run_job(Job("sft", supervised_arguments(paths, "sft", tmp_path / "1", short)))
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]
    paths |= {"sft": str(tmp_path / "1")}
    run_job(Job("reward", supervised_arguments(paths, "sft", tmp_path / "2", short)))
    paths |= {"reward": str(tmp_path / "2")}
    extra = f"--top_k 8 --cost_dim 16 --actor_gradient_checkpointing --critic_gradient_checkpointing {BOTH_ADAPTED}"
    extra += f" --dtype bf16 --actor_zero_stage {stage} --critic_zero_stage {stage}"
    lines = run_job(Job("wpr", ppo_arguments(paths, tmp_path / "3", extra)))
    assert lines[0]["log_ratio"] == pytest.approx(0.0, abs=1e-3)
    assert lines[-1]["log_ratio"] != 0.0
    actor = AutoModelForCausalLM.from_pretrained(tmp_path / "3/actor")
    critic = AutoModelForSequenceClassification.from_pretrained(tmp_path / "3/critic")
    assert not any("lora" in name for model in (actor, critic) for name, _ in model.named_parameters())
    for folder in ("1", "1/step_3", "2/step_3", "3/step-5/actor", "3/step-5/critic"):
        assert (tmp_path / folder / "adapter/adapter_model.safetensors").is_file()


def test_training_goes_on_unharmed_after_a_save(tmp_path: Path, process_group: torch.device) -> None:
    paths = make_folders(tmp_path)
    runs = {}
    for name, interval in (("saved", 3), ("unsaved", 0)):
        extra = f"--max_steps 6 --save_steps {interval} --actor_zero_stage 2 {BOTH_ADAPTED}"
        runs[name] = run_job(Job("ppo", ppo_arguments(paths, tmp_path / name, extra)))
    assert (tmp_path / "saved/step-3/actor").is_dir()
    assert not (tmp_path / "unsaved/step-3").exists()
    assert len(runs["saved"]) == 6
    assert without_times(runs["saved"]) == without_times(runs["unsaved"])
    for role in ("actor", "critic"):
        ours, theirs = (load_file(tmp_path / run / role / "model.safetensors") for run in runs)
        assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    # the adapter still learns after the save
    assert runs["saved"][5]["log_ratio"] != runs["saved"][3]["log_ratio"]
    steps = [AutoModelForCausalLM.from_pretrained(tmp_path / f"saved/step-{n}/actor") for n in (3, 6)]
    weights = [model.get_parameter("model.layers.0.mlp.up_proj.weight") for model in steps]
    assert not torch.equal(*weights)


def test_reference_and_reward_model_inside_the_adapted_ones_equal_models_of_their_own(
    tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_folders(tmp_path)
    extra = f"--top_k 8 --cost_dim 16 {BOTH_ADAPTED}"
    shared = run_job(Job("wpr", ppo_arguments(paths, tmp_path / "shared", extra)))
    monkeypatch.setattr(Role, "is_inside_its_twin", False)
    loaded = run_job(Job("wpr", ppo_arguments(paths, tmp_path / "loaded", extra)))
    assert shared[-1]["log_ratio"] != 0.0
    assert without_times(shared) == without_times(loaded)


def test_beside_other_trained_weights_the_reference_is_a_model_of_its_own(
    tmp_path: Path, process_group: torch.device
) -> None:
    paths = make_folders(tmp_path)
    extra = "--actor_lora_dim 4 --lora_alpha 8 --actor_learning_rate 1e-2 --actor_lora_module_name q_proj"
    lines = run_job(Job("ppo", ppo_arguments(paths, tmp_path / "out", extra)))
    assert abs(lines[-1]["log_ratio"]) > 1e-3
    assert not (tmp_path / "out/actor/adapter").exists()
    actor, start = (AutoModelForCausalLM.from_pretrained(path) for path in (tmp_path / "out/actor", paths["sft"]))
    for name in ("embed_tokens", "layers.1.mlp.up_proj", "layers.1.self_attn.q_proj"):
        ours, theirs = (model.get_parameter(f"model.{name}.weight") for model in (actor, start))
        assert not torch.equal(ours, theirs)


def test_steps_train_beside_weights_in_four_bits(
    tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = pytest.importorskip("bitsandbytes").nn.modules
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)  # its layout for CPUs needs wider layers than ours
    for module in (supervised_setup, ppo_plan):
        monkeypatch.setattr(module, "check_adapter", lambda *_: None)  # refuses 4 bits where there is no GPU
    paths = make_folders(tmp_path)
    words = supervised_arguments(paths, "sft", tmp_path / "1", f"--dtype bf16 --zero_stage 2 --quantize 4bit {ADAPTED}")
    lines = run_job(Job("sft", words))
    assert lines[-1]["eval_loss"] < lines[0]["eval_loss"]
    extra = f"--dtype bf16 --actor_zero_stage 1 --actor_quantize 4bit --critic_quantize 4bit {BOTH_ADAPTED}"
    lines = run_job(Job("ppo", ppo_arguments(paths | {"sft": str(tmp_path / "1")}, tmp_path / "3", extra)))
    # the reference is the actor without its adapter, in 4 bits too
    assert lines[0]["log_ratio"] == 0.0
    assert lines[-1]["log_ratio"] != 0.0
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "3/actor").dtype == torch.bfloat16

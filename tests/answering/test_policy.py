"""The model that answers: found, loaded, and given prompts that fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dschat.answering.options import parse_options
from dschat.answering.policy import load_policy, policy_path, prompt_ids, weights_key
from dschat.answering.prompts import PromptRow
from dschat.errors import UserError

CPU = torch.device("cpu")


def options(models: Path, *more: str):
    words = f"--proj-path {models} --dataset summarize --model {models}/run/step-7 --reward-model {models}/reward"
    return parse_options([*words.split(), "--device", "cpu", *more])


def test_the_actor_is_below_the_folder_that_step_3_wrote(models: Path) -> None:
    assert policy_path(options(models)) == str(models / "run/step-7/actor")
    plain = options(models, "--model", str(models / "base"))
    with pytest.raises(UserError, match="has no actor folder but is a model; add --no-actor-folder"):
        policy_path(plain)
    with pytest.raises(UserError, match="pass the step-<n> folder that step 3 wrote, or add --no-actor-folder"):
        policy_path(options(models, "--model", str(models / "nowhere")))


def test_prompts_are_cut_at_the_front_and_never_in_the_cue(models: Path) -> None:
    found = options(models, "--max-prompt-length", "12", "--max-new-tokens", "8")
    policy = load_policy(policy_path(found), found, device=CPU, dtype=torch.float32)
    assert policy.encoder.max_length == 12
    long = PromptRow("red cat " * 20 + "TL;DR:", "TL;DR:", None, None)
    ids = prompt_ids([long], policy.encoder)[0]
    assert len(ids) == 12
    assert policy.tokenizer.decode(ids).endswith("TL;DR:")
    with pytest.raises(UserError, match="prompt 1 does not fit 12 tokens"):
        prompt_ids([PromptRow("x" + "red cat " * 20, "red cat " * 20, None, None)], policy.encoder)


def test_answers_longer_than_the_model_are_refused(models: Path) -> None:
    found = options(models, "--max-new-tokens", "4000")
    with pytest.raises(UserError, match="--max-new-tokens 4000 leaves no room for a prompt"):
        load_policy(policy_path(found), found, device=CPU, dtype=torch.float32)


def test_other_weights_have_another_key(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"1")
    before = weights_key(str(tmp_path))
    assert before == weights_key(str(tmp_path))
    path.write_bytes(b"12")
    assert weights_key(str(tmp_path)) != before
    assert weights_key("google/gemma-2b") is None

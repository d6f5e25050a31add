"""From words and YAML to settings: both mean the same, and what cannot be read gets one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.config.steps import parse_sft_config
from dschat.errors import UserError
from tests.config import commands
from tests.config.commands import parse_kl, refusal


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("wpr", "--cost_type l3", "invalid choice: 'l3'"),
        ("wpr", "--cost_emb summarize", "no cost matrix is cached any more"),
        ("wpr", "--f_div js", "there is no flag --f_div"),
        ("ppo", "--enable_mixed_precision_lora", "keep them in 4 bits with --actor_quantize 4bit"),
        ("ppo", "--termination_condition bigram", "invalid choice: 'bigram'"),
        ("ppo", "--enable_hybrid_engine", "kernels for Llama, none for Gemma or Qwen"),
        ("apps", "--code_sandbox docker", "invalid choice: 'docker'"),
        ("wpr_apps", "--reward_shape best", "invalid choice: 'best'"),
        ("ppo", "--max_tests 3", "there is no flag --max_tests"),
        ("sft", "--learning_rat 1", "there is no flag --learning_rat; did you mean --learning_rate?"),
        ("sft", "--dtype fp8", "invalid choice: 'fp8'"),
        ("reward", "--config nowhere.yaml", "there is no such file"),
    ],
)
def test_words_that_cannot_be_read_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)


def test_harmless_values_of_retired_flags_are_accepted() -> None:
    config = parse_kl([*commands.PPO, "--inference_tp_size", "1", "--compute_fp32_loss"])
    assert config == parse_kl(commands.PPO)


def test_yaml_gives_the_same_settings_and_the_command_line_overrides_it(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(
        "data_path: [openai/summarize_from_feedback]\nmodel_name_or_path: google/gemma-2b\nlearning_rate: 5.0e-5\n"
        "gradient_checkpointing: true\noutput_dir: out\nzero_stage: 2\ndropout: null\n"
    )
    from_file = parse_sft_config(["--config", str(file)])
    from_words = parse_sft_config(
        "--data_path openai/summarize_from_feedback --model_name_or_path google/gemma-2b --learning_rate 5e-5 "
        "--gradient_checkpointing --output_dir out --zero_stage 2".split()
    )
    assert from_file == from_words
    assert parse_sft_config(["--zero_stage", "1", "--config", str(file)]).training.zero_stage == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- a\n- b\n", "must hold lines such as"),
        ("a: [1\n", "is not readable as YAML"),
        ("max_steps: 2026-99-99\n", "is not readable as YAML"),
        ("max_steps: !!int x\n", "is not readable as YAML"),
        ("max_steps: !!bool x\n", "is not readable as YAML"),
        ("max_steps: !!timestamp x\n", "is not readable as YAML"),
        ("max_steps: !!int ''\n", "is not readable as YAML"),
        ("a: " + "[" * 5_000, "is not readable as YAML"),
        ("learning_rat: 1\noutput_dir: x\nmodel_name_or_path: m\n", "did you mean --learning_rate"),
        ('gradient_checkpointing: "\\n"\n', "argument --gradient_checkpointing"),
    ],
)
def test_bad_yaml_gets_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as caught:
        parse_sft_config(["--config", str(file)])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)

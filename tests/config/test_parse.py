"""From words and YAML to settings: both mean the same, and what cannot be read gets one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.config.flag import flags_of
from dschat.config.steps import parse_reward_config, parse_sft_config
from dschat.errors import UserError
from tests.config import commands
from tests.config.commands import parse_kl, parsed, refusal


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
        ("ppo", "--offload maybe", "argument --offload: 'maybe' is neither true nor false"),
        ("ppo", "--ppo_epochs many", "argument --ppo_epochs/--ppo-epochs: invalid int value: 'many'"),
        ("ppo", "--max_tests 3", "there is no flag --max_tests"),
        ("sft", "--learning_rat 1", "there is no flag --learning_rat; did you mean --learning_rate?"),
        ("sft", "--dtype fp8", "invalid choice: 'fp8'"),
        ("reward", "--config nowhere.yaml", "there is no such file"),
    ],
)
def test_words_that_cannot_be_read_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)


def help_of(step: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    """The text of --help in lines without an end."""
    monkeypatch.setenv("COLUMNS", "10000")
    with pytest.raises(SystemExit, match="0"):
        parsed(step, "--help")
    return capsys.readouterr().out


def test_help_shows_the_defaults_that_hold_in_the_step(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    sft, reward, ppo = (help_of(step, capsys, monkeypatch) for step in ("sft", "reward", "ppo"))
    assert "Peak learning rate. (default: 0.001)" in sft
    assert "Peak learning rate. (default: 5e-05)" in reward
    assert "Warm-up as a share of all optimizer steps. (default: 0.1)" in ppo
    assert "Rank of the adapter; 0: none, all weights are trained. (default: 0)" in sft
    assert "several are mixed. (default: Dahoas/rm-static)" in sft
    assert "(default: None)" not in ppo
    assert "(default: False)" not in ppo
    for step, text in (("sft", sft), ("ppo", ppo)):
        for section in vars(parsed(step)).values():
            for name, flag in flags_of(section).items():
                assert f"--{name}" in text
                assert flag.help in text


def test_what_help_says_holds_where_nothing_is_given() -> None:
    required = ["--model_name_or_path", "m", "--output_dir", "o"]
    assert parse_sft_config(required).training.learning_rate == 1e-3
    assert parse_reward_config(required).training.learning_rate == 5e-5
    assert parsed("ppo").models.enable_zero3_generation_gather is True


@pytest.mark.parametrize(
    ("words", "rows"),
    [("--max_steps 7", 7), ("--max-steps 7", 7), ("--test_stop_step=7", 7), ("--test-stop-step 7", 7), ("", 0)],
)
def test_flags_are_spelled_with_hyphens_too_and_have_aliases(words: str, rows: int) -> None:
    assert parsed("ppo", words).schedule.max_steps == rows


@pytest.mark.parametrize(
    ("words", "on"),
    [
        ("--enable_zero3_generation_gather", True),
        ("--enable_zero3_generation_gather Yes", True),
        ("--enable_zero3_generation_gather 0", False),
        ("--enable-zero3-generation-gather=false", False),
        ("--no_enable_zero3_generation_gather", False),
        ("--no-enable-zero3-generation-gather", False),
    ],
)
def test_switches_are_given_alone_or_with_a_word(words: str, on: bool) -> None:
    assert parsed("ppo", words).models.enable_zero3_generation_gather is on


def test_flags_are_not_guessed_from_their_beginnings() -> None:
    assert "there is no flag --kl_ct; did you mean --kl_ctl?" in refusal("ppo", "--kl_ct 1")


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

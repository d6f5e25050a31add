"""A flag that was given has an effect, or is refused: even one that was given at its default."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from dschat.config.flag import defaults_of, flags_of
from dschat.config.ppo import AveragingConfig
from dschat.errors import UserError
from tests.config import commands
from tests.config.commands import parse_kl, parsed, refusal, section_classes

# Each flag with an owner that has a default, and words with which it has an effect.
OWNERS = """
--lora_learning_rate --lora_dim 8
--lora_alpha --lora_dim 8
--actor_lora_learning_rate --actor_lora_dim 8
--critic_lora_learning_rate --critic_lora_dim 8
--lora_alpha --critic_lora_dim 8
--ema_decay --enable_ema
--penalty_horizon --penalty_target 1
--unsup_coef --unsupervised_dataset_name text
--preprocessing_num_workers --unsupervised_dataset_name text
--eval_prompts --eval_steps 5
--print_answers_interval --print_answers
--f_div_alpha --f_div alpha
--kl_estimator --f_div rkl
--ngram --termination_condition parsing --parser_cutoff 5
""".strip().splitlines()
WITHOUT = {"--kl_estimator": "--f_div js", "--ngram": "--termination_condition ppl"}


def defaults() -> dict[str, object]:
    return {f"--{name}": value for section in section_classes() for name, value in defaults_of(section).items()}


def step_of(words: str) -> str:
    return "sft" if words.split()[1] == "--lora_dim" else "ppo"


def test_the_table_has_every_flag_that_has_an_owner_and_a_default() -> None:
    owned = {f"--{name}" for section in section_classes() for name, flag in flags_of(section).items() if flag.needs}
    without_default = {name for name in owned if defaults()[name] in (None, [])}
    assert {line.split()[0] for line in OWNERS} == owned - without_default


@pytest.mark.parametrize("line", OWNERS)
def test_a_flag_given_at_its_default_is_given(line: str) -> None:
    flag, _, owner = line.partition(" ")
    given = f"{flag} {defaults()[flag]}"
    sentence = refusal(step_of(line), f"{given} {WITHOUT.get(flag, '')}")
    assert sentence.startswith(f"{given} has no effect without --")
    assert owner.split()[0] in sentence
    assert f"or drop {flag}" in sentence
    parsed(step_of(line), f"{given} {owner}")


def test_a_flag_in_the_file_is_given_too(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("ema_decay: 0.992\n")
    assert refusal("ppo", f"--config {file}").startswith("--ema_decay 0.992 has no effect without --enable_ema")
    assert parsed("ppo", f"--config {file} --enable_ema").averaging == AveragingConfig(True, 0.992)
    file.write_text("ema_decay: null\n")
    parsed("ppo", f"--config {file}")


def test_settings_made_in_code_have_given_nothing() -> None:
    config = parse_kl(commands.PPO)
    other = dataclasses.replace(config, averaging=AveragingConfig(ema_decay=0.5))
    other.check()
    with pytest.raises(UserError, match="--ema_decay"):
        other.check(given={"ema_decay"})


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("sft", "--lora_learning_rate 1e-3", "--lora_learning_rate 0.001 has no effect without --lora_dim; add that"),
        ("sft", "--tensorboard_path t", "--tensorboard_path t has no effect without --enable_tensorboard"),
        ("ppo", "--lora_alpha 8", "--lora_alpha 8.0 has no effect without --actor_lora_dim or --critic_lora_dim"),
        ("ppo", "--critic_lora_learning_rate 1e-3", "has no effect without --critic_lora_dim"),
        ("ppo", "--ema_decay 0.9", "--ema_decay 0.9 has no effect without --enable_ema"),
        ("ppo", "--unsup_coef 1", "--unsup_coef 1.0 has no effect without --unsupervised_dataset_name"),
        ("ppo", "--eval_prompts 8", "--eval_prompts 8 has no effect without --eval_steps"),
        ("ppo", "--print_answers_interval 2", "--print_answers_interval 2 has no effect without --print_answers"),
        ("ppo", "--f_div_alpha 0.3", "--f_div_alpha 0.3 has no effect without --f_div alpha"),
        ("reward", "--lora_module_name q_proj", "--lora_module_name q_proj has no effect without --lora_dim; add that"),
        (
            "ppo",
            "--critic_lora_module_name score",
            "--critic_lora_module_name score has no effect without --critic_lora_dim",
        ),
        ("ppo", "--penalty_horizon 50", "--penalty_horizon 50 has no effect without --penalty_target"),
        ("ppo", "--kl_estimator k2 --f_div js", "--kl_estimator k2 has no effect without --f_div rkl"),
        (
            "ppo",
            "--ngram 2 --termination_condition ppl",
            "--ngram 2 has no effect without --termination_condition fixed or parsing",
        ),
        ("ppo", "--repeat_times 3", "--repeat_times 3 has no effect without --termination_condition randomized"),
        ("ppo", "--parser_cutoff 3", "--parser_cutoff 3 has no effect without --termination_condition parsing"),
        (
            "ppo",
            "--unsupervised_dataset_config_name x",
            "--unsupervised_dataset_config_name x has no effect without --unsupervised_dataset_name",
        ),
    ],
)
def test_flags_without_an_effect_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    assert sentence in refusal(step, extra)

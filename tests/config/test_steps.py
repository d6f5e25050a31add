"""Settings: the published commands, one definition per flag, cross-field checks, YAML, retired flags."""

from __future__ import annotations

import ast
import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import dschat
from dschat.config import sections
from dschat.config.retired import RETIRED_FLAGS
from dschat.config.sections import DivergenceConfig, UnitTestRewardConfig, WassersteinConfig
from dschat.config.steps import PPOConfig, parse_ppo_config, parse_reward_config, parse_sft_config
from dschat.errors import UserError
from tests.config import commands

PACKAGE = Path(dschat.__file__).parent


def parse_kl(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=DivergenceConfig)


def parse_wpr(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=WassersteinConfig)


def parse_apps(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=DivergenceConfig, reward=UnitTestRewardConfig)


def parse_wpr_apps(words: list[str]) -> PPOConfig:
    return parse_ppo_config(words, regularizer=WassersteinConfig, reward=UnitTestRewardConfig)


STEPS: dict[str, tuple[Callable[[list[str]], Any], list[str]]] = {
    "sft": (parse_sft_config, commands.SFT),
    "reward": (parse_reward_config, commands.REWARD),
    "ppo": (parse_kl, commands.PPO),
    "wpr": (parse_wpr, commands.WASSERSTEIN),
    "apps": (parse_apps, commands.APPS),
    "wpr_apps": (parse_wpr_apps, commands.WASSERSTEIN_APPS),
}


def section_classes() -> list[type]:
    return [c for c in vars(sections).values() if dataclasses.is_dataclass(c) and c.__module__ == sections.__name__]


def test_published_sft_command_means_what_it_says() -> None:
    config = parse_sft_config(["--local_rank=3", *commands.SFT])
    assert config.runtime.local_rank == 3
    assert config.data.data_path == ["openai/summarize_from_feedback"]
    assert config.training.learning_rate == 5e-5
    assert config.training.gradient_checkpointing is True
    assert config.schedule.warmup_steps(1000) == 100
    assert config.output.output_dir == "../../models/summarize/sft"


def test_published_reward_command_means_what_it_says() -> None:
    config = parse_reward_config(commands.REWARD)
    assert config.training.zero_stage == 2
    assert config.training.weight_decay == 0.1


def test_published_ppo_commands_mean_what_they_say() -> None:
    config = parse_wpr(commands.WASSERSTEIN)
    assert (config.regularizer.max_iter, config.regularizer.cost_dim, config.regularizer.top_k) == (10, 512, 128)
    assert (config.models.actor_zero_stage, config.models.critic_zero_stage) == (2, 3)
    assert config.models.actor_dropout == 0.0
    assert config.runtime.offload is True
    assert config.ppo.kl_ctl == 0.05
    batches = config.batches(world_size=8)
    assert (batches.rollout_batches, batches.updates, batches.prompts) == (4, 1, 256)
    assert parse_kl(commands.PPO).regularizer == DivergenceConfig()


@pytest.mark.parametrize(
    ("generation", "group", "training", "accumulation", "epochs", "expected"),
    [
        (8, 1, 8, 4, 1, (4, 1, 64)),
        (16, 1, 4, 2, 1, (1, 2, 32)),
        (4, 3, 6, 1, 2, (3, 4, 24)),
        (4, 2, 8, 3, 1, (6, 1, 48)),
    ],
)
def test_batch_arithmetic_fills_whole_optimizer_steps(
    generation: int, group: int, training: int, accumulation: int, epochs: int, expected: tuple[int, int, int]
) -> None:
    extra = (
        f"--per_device_generation_batch_size {generation} --generation_batches {group} --ppo_epochs {epochs} "
        f"--per_device_training_batch_size {training} --gradient_accumulation_steps {accumulation}"
    )
    batches = parse_kl([*commands.PPO, *extra.split()]).batches(world_size=2)
    assert (batches.rollout_batches, batches.updates, batches.prompts) == expected
    assert batches.micro_batches % accumulation == 0


def test_no_flag_is_defined_twice() -> None:
    names = Counter(field.name for section in section_classes() for field in dataclasses.fields(section))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names).isdisjoint(RETIRED_FLAGS)


def test_every_flag_is_explained_and_read_somewhere() -> None:
    read = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "sections.py":
            tree = ast.parse(path.read_text())
            methods = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)]
        else:
            methods = [ast.parse(path.read_text())]
        for tree in methods:
            read |= {n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    for section in section_classes():
        assert section.__doc__
        for field in dataclasses.fields(section):
            assert field.metadata.get("help"), f"{section.__name__}.{field.name} has no help"
            assert field.name in read, f"nothing reads {section.__name__}.{field.name}"


@pytest.mark.parametrize(
    ("step", "extra", "sentence"),
    [
        ("wpr", "--top_k 0", "--top_k must be at least 1, got 0; the paper's commands use 128"),
        ("wpr", "--epsilon 0", "--epsilon must be above 0, got 0.0; the paper's commands use 0.01"),
        ("wpr", "--epsilon -1", "--epsilon must be above 0"),
        ("wpr", "--debias", "--debias needs --transport capped"),
        ("wpr", "--far_cost 2", "--far_cost needs --transport capped"),
        ("wpr", "--normalize --transport capped", "--normalize belongs to --transport truncated"),
        ("wpr", "--cost_type l3", "invalid choice: 'l3'"),
        ("wpr", "--cost_emb summarize", "no cost matrix is cached any more"),
        ("wpr", "--f_div js", "there is no flag --f_div"),
        ("sft", "--lora_learning_rate 1e-3", "--lora_learning_rate 0.001 has no effect without --lora_dim; add that"),
        ("sft", "--tensorboard_path t", "--tensorboard_path t has no effect without --enable_tensorboard"),
        ("ppo", "--lora_alpha 8", "--lora_alpha 8.0 has no effect without --actor_lora_dim or --critic_lora_dim"),
        ("ppo", "--critic_lora_learning_rate 1e-3", "has no effect without --critic_lora_dim"),
        ("ppo", "--ema_decay 0.9", "--ema_decay 0.9 has no effect without --enable_ema"),
        ("ppo", "--unsup_coef 1", "--unsup_coef 1.0 has no effect without --unsupervised_dataset_name"),
        ("ppo", "--eval_prompts 8", "--eval_prompts 8 has no effect without --eval_steps"),
        ("ppo", "--print_answers_interval 2", "--print_answers_interval 2 has no effect without --print_answers"),
        ("ppo", "--f_div_alpha 0.3", "--f_div_alpha 0.3 has no effect without --f_div alpha"),
        ("ppo", "--f_div_alpha 1", "--f_div_alpha must lie between 0 and 1, got 1.0"),
        ("ppo", "--f_div js --f_div_low_var", "--f_div_low_var works with --f_div rkl or fkl, got js"),
        ("ppo", "--per_device_training_batch_size 3", "does not divide the 8 rows"),
        ("ppo", "--temperature 0", "--temperature must be above 0"),
        ("ppo", "--sampling_top_p 0", "--sampling_top_p must be above 0 and at most 1"),
        ("ppo", "--gamma 1.5", "--gamma must be between 0 and 1"),
        ("sft", "--lora_dim -1", "--lora_dim must not be negative, got -1"),
        ("sft", "--lora_dim 8 --lora_learning_rate 0", "--lora_learning_rate must be above 0"),
        ("sft", "--lora_dim 8 --lora_alpha 0", "--lora_alpha must be above 0"),
        ("sft", "--only_optimize_lora", "--only_optimize_lora needs --lora_dim"),
        ("reward", "--lora_module_name q_proj", "--lora_module_name needs --lora_dim"),
        ("reward", "--lora_dim 8 --quantize 4bit", "--quantize 4bit needs --lora_dim and --only_optimize_lora"),
        ("sft", "--lora_dim 8 --only_optimize_lora --quantize 4bit", "--quantize 4bit needs --dtype bf16"),
        ("ppo", "--only_optimize_lora", "--only_optimize_lora needs --actor_lora_dim or --critic_lora_dim"),
        ("ppo", "--critic_lora_module_name score", "--critic_lora_module_name needs --critic_lora_dim"),
        (
            "ppo",
            "--critic_lora_dim 8 --only_optimize_lora --critic_quantize 4bit",
            "--critic_quantize 4bit needs --critic_zero_stage 0, 1 or 2",
        ),
        ("ppo", "--enable_mixed_precision_lora", "keep them in 4 bits with --actor_quantize 4bit"),
        ("ppo", "--reward_model_weight 0", "leaves nothing that scores answers; name a --reward_function"),
        ("ppo", "--reward_model_weight nan", "--reward_model_weight must be finite"),
        ("ppo", "--reward_function a:b c:d --reward_function_weight 1", "has 1 numbers for 2 functions"),
        ("ppo", "--dual_clip 1", "--dual_clip must be above 1, got 1.0; 3 is usual"),
        ("ppo", "--value_loss_coef 0", "--value_loss_coef must be above 0"),
        ("ppo", "--entropy_coef -1", "--entropy_coef must not be negative"),
        ("ppo", "--early_stop_kl 1", "--early_stop_kl has no effect where a PPO step makes one optimizer step"),
        ("ppo", "--penalty_horizon 50", "--penalty_horizon belongs to --penalty_target"),
        ("ppo", "--max_tokens_per_micro_batch 0", "--max_tokens_per_micro_batch must be at least 1"),
        (
            "ppo",
            "--max_tokens_per_micro_batch 64 --unsupervised_dataset_name a --unsup_coef 1",
            "--max_tokens_per_micro_batch does not go with --unsupervised_dataset_name",
        ),
        ("ppo", "--early_stop_kl 0", "--early_stop_kl must be above 0"),
        ("ppo", "--missing_eos_penalty -1", "--missing_eos_penalty must not be negative"),
        ("ppo", "--penalty_target 0", "--penalty_target must be above 0"),
        ("ppo", "--penalty_target 1 --kl_ctl 0", "--penalty_target needs a --kl_ctl above 0"),
        ("ppo", "--penalty_target 1 --f_div none", "--penalty_target has no effect with --f_div none"),
        ("ppo", "--penalty_horizon 0", "--penalty_horizon must be at least 1"),
        ("wpr", "--penalty_clip -1", "--penalty_clip must not be negative"),
        ("ppo", "--kl_estimator k2 --f_div js", "--kl_estimator belongs to --f_div rkl, got js"),
        ("ppo", "--kl_estimator k3 --f_div_low_var", "--f_div_low_var is --kl_estimator k3"),
        ("ppo", "--ngram 0", "--ngram must be at least 1, got 0"),
        ("ppo", "--ngram 2 --termination_condition ppl", "--ngram 2 has no effect with --termination_condition ppl"),
        ("ppo", "--termination_condition randomized", "needs --repeat_times; --repeat_times 3 is a start"),
        ("ppo", "--termination_condition parsing", "needs --parser_cutoff; --parser_cutoff 5 is a start"),
        ("ppo", "--repeat_times 3", "--repeat_times belongs to --termination_condition randomized, got fixed"),
        ("ppo", "--parser_cutoff 3", "--parser_cutoff belongs to --termination_condition parsing, got fixed"),
        ("ppo", "--termination_condition parsing --parser_cutoff 0", "--parser_cutoff must be at least 1, got 0"),
        ("ppo", "--termination_condition bigram", "invalid choice: 'bigram'"),
        ("ppo", "--enable_ema --ema_decay 1", "--ema_decay must be at least 0 and below 1, got 1.0"),
        (
            "ppo",
            "--actor_lora_dim 8 --only_optimize_lora --offload_reference_model",
            "--offload_reference_model has no effect",
        ),
        ("ppo", "--enable_hybrid_engine", "kernels for Llama, none for Gemma or Qwen"),
        ("ppo", "--unsup_coef -1", "--unsup_coef must not be negative, got -1.0"),
        ("ppo", "--unsupervised_dataset_config_name x", "needs --unsupervised_dataset_name"),
        ("ppo", "--preprocessing_num_workers 0", "--preprocessing_num_workers must be at least 1"),
        ("ppo", "--actor_zero_stage 4", "--actor_zero_stage must be 0, 1, 2 or 3, got 4"),
        ("apps", "--test_time_limit 0", "--test_time_limit must be above 0, got 0.0"),
        ("apps", "--test_memory_limit_mb 64", "--test_memory_limit_mb must be at least 256, got 64"),
        ("apps", "--max_tests -1", "--max_tests must not be negative"),
        ("apps", "--grading_workers -1", "--grading_workers must not be negative"),
        ("apps", "--code_sandbox docker", "invalid choice: 'docker'"),
        ("wpr_apps", "--reward_shape best", "invalid choice: 'best'"),
        ("ppo", "--max_tests 3", "there is no flag --max_tests"),
        ("sft", "--zero_stage 5", "--zero_stage must be 0, 1, 2 or 3, got 5"),
        ("sft", "--learning_rate 0", "--learning_rate must be above 0"),
        ("sft", "--learning_rat 1", "there is no flag --learning_rat; did you mean --learning_rate?"),
        ("sft", "--dtype fp8", "invalid choice: 'fp8'"),
        ("sft", "--gradient_accumulation_steps 0", "--gradient_accumulation_steps must be at least 1"),
        ("reward", "--warmup_ratio 1", "--warmup_ratio must be at least 0 and below 1"),
        ("reward", "--config nowhere.yaml", "there is no such file"),
        ("reward", "--deepspeed_config nowhere.json", "there is no such file"),
    ],
)
def test_bad_settings_get_one_sentence(step: str, extra: str, sentence: str) -> None:
    parse, words = STEPS[step]
    with pytest.raises(UserError) as caught:
        parse([*words, *extra.split()])
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("step", STEPS)
def test_missing_output_folder_is_refused_before_anything_runs(step: str) -> None:
    parse, words = STEPS[step]
    at = words.index("--output_dir")
    with pytest.raises(UserError, match="--output_dir is missing"):
        parse(words[:at] + words[at + 2 :])


def test_the_critic_may_be_left_out_where_unit_tests_give_the_rewards() -> None:
    assert parse_apps(commands.APPS).models.critic_model_name_or_path is None
    assert not parse_apps(commands.APPS).has_reward_checkpoint
    assert parse_kl(commands.PPO).has_reward_checkpoint
    at = commands.PPO.index("--critic_model_name_or_path")
    with pytest.raises(UserError, match="--critic_model_name_or_path is missing; name the step_<n> folder"):
        parse_kl(commands.PPO[:at] + commands.PPO[at + 2 :])


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


def test_lora_flags_as_published_describe_the_adapters() -> None:
    assert parse_sft_config(commands.SFT).adapter is None
    extra = "--lora_dim 128 --lora_module_name decoder.layers. --only_optimize_lora --lora_learning_rate 1e-4"
    adapter = parse_sft_config([*commands.SFT, *extra.split()]).adapter
    assert adapter is not None
    assert (adapter.rank, adapter.alpha, adapter.learning_rate) == (128, 1.0, 1e-4)
    assert (adapter.module_names, adapter.alone, adapter.quantized) == (("decoder.layers.",), True, False)
    extra = "--actor_lora_dim 64 --actor_lora_module_name q_proj v_proj --lora_alpha 16 --actor_lora_learning_rate 1e-3"
    config = parse_kl([*commands.PPO, *extra.split()])
    assert config.critic_adapter is None
    assert config.actor_adapter is not None
    assert (config.actor_adapter.rank, config.actor_adapter.alpha, config.actor_adapter.alone) == (64, 16.0, False)
    assert config.actor_adapter.module_names == ("q_proj", "v_proj")


def test_warmup_steps_win_over_the_ratio() -> None:
    config = parse_kl([*commands.PPO, "--num_warmup_steps", "7"])
    assert config.schedule.warmup_steps(1000) == 7
    assert parse_kl(commands.PPO).schedule.warmup_steps(1000) == 50

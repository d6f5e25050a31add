"""The settings of each step: sections composed, checked against each other, and read from the command line or YAML."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from transformers.hf_argparser import HfArgumentParser

from dschat.config.adapter import AdapterSettings
from dschat.config.retired import reject_unknown_flags
from dschat.config.sections import (
    ActorCriticConfig,
    ActorCriticLoraConfig,
    AdaptationConfig,
    AveragingConfig,
    DataConfig,
    DivergenceConfig,
    GuardConfig,
    LearnedRewardConfig,
    LoraConfig,
    MacroActionConfig,
    MonitoringConfig,
    OutputConfig,
    PPOUpdateConfig,
    RolloutConfig,
    RuntimeConfig,
    SavingConfig,
    ScheduleConfig,
    SFTDataConfig,
    ShapingConfig,
    SupervisedConfig,
    UnitTestRewardConfig,
    UnsupervisedConfig,
    WassersteinConfig,
)
from dschat.errors import UserError

RegularizerConfig = DivergenceConfig | WassersteinConfig
RewardConfig = LearnedRewardConfig | UnitTestRewardConfig

SFT_DEFAULTS = {"learning_rate": 1e-3}
PPO_DEFAULTS = {"warmup_ratio": 0.1}
LEAST_TEST_MEMORY_MB = 256
YAML_VALUE_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML lets through for dates such as 2026-99-99, tags such as `!!int x`, and thousands of brackets."""


@dataclass(frozen=True)
class RewardTrainingConfig:
    """Settings of step 2."""

    data: DataConfig
    """Texts and their share."""
    training: SupervisedConfig
    """Model, batches, optimizer."""
    lora: LoraConfig
    """The adapter."""
    adaptation: AdaptationConfig
    """What else is trained beside it."""
    schedule: ScheduleConfig
    """Length and learning-rate curve."""
    runtime: RuntimeConfig
    """Devices and precision."""
    output: OutputConfig
    """Folders."""
    saving: SavingConfig
    """Saving and resuming."""
    guards: GuardConfig
    """Numbers that are not finite."""

    @property
    def adapter(self) -> AdapterSettings | None:
        """The model's LoRA adapter, None without one."""
        return self.lora.adapter(self.adaptation)

    def check(self) -> None:
        """Raise UserError for the first setting that cannot work."""
        _check_common(self.data, self.schedule, self.runtime, self.output)
        _check_saving(self.saving, self.output)
        _check_at_least_one(self.guards, "max_skipped_steps")
        _check_supervised(self.training)
        _check_lora(self.lora, "", self.training.zero_stage, self.adaptation, self.runtime)
        _check_adaptation(self.adaptation, [self.adapter], "--lora_dim")
        _check_read(self.lora, self.lora.lora_dim > 0, "--lora_dim", "lora_learning_rate")
        _check_read(self.adaptation, self.lora.lora_dim > 0, "--lora_dim", "lora_alpha")


@dataclass(frozen=True)
class SFTConfig(RewardTrainingConfig):
    """Settings of step 1: those of step 2, and what it may do with its texts."""

    sft_data: SFTDataConfig
    """More texts, and where the loss counts."""


@dataclass(frozen=True)
class BatchArithmetic:
    """How prompts become optimizer steps; every count is per device unless it says otherwise."""

    rollout_batches: int
    """Rollout batches per PPO step: whole groups of --generation_batches that fill whole optimizer steps."""
    micro_batches: int
    """PPO forward and backward passes per PPO step and PPO epoch."""
    updates: int
    """Optimizer steps per PPO step."""
    prompts: int
    """Prompts per PPO step over all devices."""


@dataclass(frozen=True)
class PPOConfig:
    """Settings of step 3."""

    data: DataConfig
    """Prompts and their share."""
    models: ActorCriticConfig
    """Checkpoints, optimizers, placement."""
    lora: ActorCriticLoraConfig
    """The adapters."""
    adaptation: AdaptationConfig
    """What else is trained beside them."""
    averaging: AveragingConfig
    """The actor's moving average."""
    rollout: RolloutConfig
    """Sampling."""
    ppo: PPOUpdateConfig
    """Rewards, advantages, losses."""
    shaping: ShapingConfig
    """What may happen to scores, penalties and advantages."""
    macro_actions: MacroActionConfig
    """What counts as one decision."""
    unsupervised: UnsupervisedConfig
    """Plain text mixed in."""
    schedule: ScheduleConfig
    """Length and learning-rate curve."""
    runtime: RuntimeConfig
    """Devices and precision."""
    output: OutputConfig
    """Folders."""
    saving: SavingConfig
    """Saving and resuming."""
    guards: GuardConfig
    """Numbers that are not finite."""
    monitoring: MonitoringConfig
    """Evaluating, showing."""
    regularizer: RegularizerConfig
    """Its type chooses the regularizer."""
    reward: RewardConfig
    """Its type chooses the source of the scores."""

    @property
    def _reference_is_actor(self) -> bool:
        return self.actor_adapter is not None and self.actor_adapter.alone

    @property
    def actor_adapter(self) -> AdapterSettings | None:
        """The actor's LoRA adapter, None without one."""
        return self.lora.actor(self.adaptation)

    @property
    def critic_adapter(self) -> AdapterSettings | None:
        """The critic's LoRA adapter, None without one."""
        return self.lora.critic(self.adaptation)

    def check(self) -> None:
        """Raise UserError for the first setting that cannot work."""
        _check_common(self.data, self.schedule, self.runtime, self.output)
        _check_saving(self.saving, self.output)
        _check_at_least_one(self.guards, "max_skipped_steps")
        _check_rollout(self.rollout, self.ppo)
        _check_shaping(self.shaping, self.ppo, self.regularizer)
        _check_macro_actions(self.macro_actions)
        _check_regularizer(self.regularizer)
        _check_reward(self.reward, self.models)
        if self.ppo.max_tokens_per_micro_batch is not None and self.unsupervised.active:
            raise UserError(
                "--max_tokens_per_micro_batch does not go with --unsupervised_dataset_name, whose text is counted in "
                "micro-batches; drop one of them"
            )
        if self.ppo.early_stop_kl is not None and self.batches(1).updates == 1:
            raise UserError(
                "--early_stop_kl has no effect where a PPO step makes one optimizer step; raise --ppo_epochs or drop it"
            )
        for flag in ("actor_zero_stage", "critic_zero_stage"):
            _check_zero_stage(flag, getattr(self.models, flag))
        _check_positive(self.models, "actor_learning_rate", "critic_learning_rate")
        _check_lora(self.lora, "actor_", self.models.actor_zero_stage, self.adaptation, self.runtime)
        _check_lora(self.lora, "critic_", self.models.critic_zero_stage, self.adaptation, self.runtime)
        _check_adaptation(
            self.adaptation, [self.actor_adapter, self.critic_adapter], "--actor_lora_dim or --critic_lora_dim"
        )
        if not 0 <= self.averaging.ema_decay < 1:
            raise UserError(f"--ema_decay must be at least 0 and below 1, got {self.averaging.ema_decay}")
        if self.models.offload_reference_model and self._reference_is_actor and not self.averaging.enable_ema:
            raise UserError(
                "--offload_reference_model has no effect: the reference is the actor without its adapter; drop it"
            )
        _check_not_negative(self.monitoring, "eval_steps")
        _check_not_negative(self.unsupervised, "unsup_coef")
        _check_at_least_one(self.unsupervised, "preprocessing_num_workers")
        if self.unsupervised.unsupervised_dataset_config_name and not self.unsupervised.unsupervised_dataset_name:
            raise UserError("--unsupervised_dataset_config_name needs --unsupervised_dataset_name")
        _check_at_least_one(self.monitoring, "eval_prompts", "print_answers_interval")
        self._check_all_read()

    def _check_all_read(self) -> None:
        """Raise UserError for a setting that the others leave without an effect."""
        lora, text, monitoring = self.lora, self.unsupervised, self.monitoring
        for role, rank in (("actor", lora.actor_lora_dim), ("critic", lora.critic_lora_dim)):
            _check_read(lora, rank > 0, f"--{role}_lora_dim", f"{role}_lora_learning_rate")
        adapted = lora.actor_lora_dim > 0 or lora.critic_lora_dim > 0
        _check_read(self.adaptation, adapted, "--actor_lora_dim or --critic_lora_dim", "lora_alpha")
        _check_read(self.averaging, self.averaging.enable_ema, "--enable_ema", "ema_decay")
        mixed = text.unsupervised_dataset_name is not None
        _check_read(text, mixed, "--unsupervised_dataset_name", "unsup_coef", "preprocessing_num_workers")
        _check_read(monitoring, monitoring.eval_steps > 0, "--eval_steps", "eval_prompts")
        _check_read(monitoring, monitoring.print_answers, "--print_answers", "print_answers_interval")

    @property
    def has_reward_checkpoint(self) -> bool:
        """Whether the critic starts from a checkpoint of step 2, which also gives the scores."""
        return isinstance(self.reward, LearnedRewardConfig)

    @property
    def uses_reward_model(self) -> bool:
        """Whether the frozen copy of that checkpoint has to be loaded."""
        return isinstance(self.reward, LearnedRewardConfig) and self.reward.reward_model_weight != 0

    @property
    def penalty_clip(self) -> float | None:
        """Bound of coefficient times penalty, None for none."""
        clip = self.shaping.penalty_clip
        return self.regularizer.published_clip if clip is None else clip or None

    def batches(self, world_size: int) -> BatchArithmetic:
        """Batch sizes that follow from the flags on `world_size` devices.

        The published commands accumulate gradients over several rollout batches (4 x 8 prompts per device and
        update): a PPO step takes as many rollout batches as fill whole optimizer steps, so that all of an update's
        answers come from one policy and are weighted alike.
        """
        per_group = self.rollout.generation_batches * self.rollout.per_device_generation_batch_size
        group_micro = per_group // self.ppo.per_device_training_batch_size
        accumulation = self.schedule.gradient_accumulation_steps
        groups = math.lcm(group_micro, accumulation) // group_micro
        micro_batches = groups * group_micro
        return BatchArithmetic(
            rollout_batches=groups * self.rollout.generation_batches,
            micro_batches=micro_batches,
            updates=micro_batches * self.ppo.ppo_epochs // accumulation,
            prompts=groups * per_group * world_size,
        )


def parse_sft_config(arguments: Sequence[str]) -> SFTConfig:
    """Read the settings of step 1 from command-line words; UserError for any that cannot work."""
    return _parse(SFTConfig, {}, SFT_DEFAULTS, arguments)


def parse_reward_config(arguments: Sequence[str]) -> RewardTrainingConfig:
    """Read the settings of step 2 from command-line words; UserError for any that cannot work."""
    return _parse(RewardTrainingConfig, {}, {}, arguments)


def parse_ppo_config(
    arguments: Sequence[str],
    *,
    regularizer: type[RegularizerConfig],
    reward: type[RewardConfig] = LearnedRewardConfig,
) -> PPOConfig:
    """Read the settings of step 3 from command-line words; UserError for any that cannot work.

    Args:
        arguments: the words after the program's name.
        regularizer: the section whose flags this entry point has; its type selects the regularizer.
        reward: the same for the source of the sequence scores.
    """
    variants = {"regularizer": regularizer, "reward": reward}
    return _parse(PPOConfig, variants, PPO_DEFAULTS, arguments)


class _OneSentenceParser(HfArgumentParser):
    """HfArgumentParser whose complaints are UserErrors."""

    def error(self, message: str) -> NoReturn:
        sentence = " ".join(message.split())  # a value may hold line breaks
        raise UserError(sentence.replace("the following arguments are required", "missing"))


def _parse(step: type, variants: Mapping[str, type], defaults: Mapping[str, Any], arguments: Sequence[str]) -> Any:
    hints = get_type_hints(step)
    sections = {f.name: variants.get(f.name, hints[f.name]) for f in dataclasses.fields(step)}
    parser = _OneSentenceParser(list(sections.values()), description=step.__doc__, allow_abbrev=False)
    parser.add_argument("--config", help="YAML file of flag: value lines; the command line overrides it.")
    parser.set_defaults(**defaults)
    known = sorted(f.name for section in sections.values() for f in dataclasses.fields(section))
    words = [*_yaml_words(arguments), *arguments]
    *parsed, _, remaining = parser.parse_args_into_dataclasses(
        words, return_remaining_strings=True, look_for_args_file=False
    )
    reject_unknown_flags(remaining, known)
    config = step(**dict(zip(sections, parsed, strict=True)))
    config.check()
    return config


def _yaml_words(arguments: Sequence[str]) -> list[str]:
    """The YAML file's settings as command-line words, to be read before the real ones."""
    import argparse

    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found = finder.parse_known_args(list(arguments))[0].config
    if found is None:
        return []
    path = Path(found)
    if not path.is_file():
        raise UserError(f"--config {found}: there is no such file ({path.absolute()})")
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, *YAML_VALUE_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {found} is not readable as YAML: {reason}") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {found} must hold lines such as 'learning_rate: 1.0e-5', one per flag")
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(v) for v in values)] if values else []
    return words


def _check_common(data: DataConfig, schedule: ScheduleConfig, runtime: RuntimeConfig, output: OutputConfig) -> None:
    if output.output_dir is None:
        raise UserError("--output_dir is missing; name the folder that the run writes to")
    if runtime.deepspeed_config is not None and not Path(runtime.deepspeed_config).is_file():
        raise UserError(f"--deepspeed_config {runtime.deepspeed_config}: there is no such file")
    if data.end_of_conversation_token == "":
        raise UserError("--end_of_conversation_token is empty; leave it out to use the tokenizer's EOS")
    _check_read(output, output.enable_tensorboard, "--enable_tensorboard", "tensorboard_path")
    _check_positive(runtime, "dist_timeout")
    _check_not_negative(data, "skip_bad_rows")
    _check_at_least_one(schedule, "num_train_epochs", "gradient_accumulation_steps")
    _check_not_negative(schedule, "max_steps")
    if not 0 <= schedule.warmup_ratio < 1:
        raise UserError(f"--warmup_ratio must be at least 0 and below 1, got {schedule.warmup_ratio}")


def _check_saving(saving: SavingConfig, output: OutputConfig) -> None:
    _check_not_negative(saving, "save_steps", "save_total_limit")
    if saving.resume == "":
        raise UserError("--resume is empty; pass auto, never, or the folder of a state")
    if saving.resume != "never" and output.overwrite_output_dir:
        raise UserError("--resume and --overwrite_output_dir contradict each other; pass one of them")
    if saving.resume not in ("never", "auto") and not Path(saving.resume).expanduser().is_dir():
        raise UserError(f"--resume {saving.resume}: there is no such folder ({Path(saving.resume).absolute()})")


def _check_supervised(training: SupervisedConfig) -> None:
    _check_at_least_one(training, "per_device_train_batch_size", "per_device_eval_batch_size", "max_seq_len")
    _check_not_negative(training, "eval_interval", "eval_iters", "weight_decay")
    _check_positive(training, "learning_rate")
    _check_zero_stage("zero_stage", training.zero_stage)


def _check_lora(
    lora: LoraConfig | ActorCriticLoraConfig,
    role: str,
    zero_stage: int,
    adaptation: AdaptationConfig,
    runtime: RuntimeConfig,
) -> None:
    """Check one model's adapter; its flags start with `role`."""
    _check_not_negative(lora, f"{role}lora_dim")
    _check_positive(lora, f"{role}lora_learning_rate")
    rank, quantize = getattr(lora, f"{role}lora_dim"), getattr(lora, f"{role}quantize")
    if rank == 0 and getattr(lora, f"{role}lora_module_name"):
        raise UserError(f"--{role}lora_module_name needs --{role}lora_dim, the rank of the adapter")
    if quantize == "none":
        return
    if rank == 0 or not adaptation.only_optimize_lora:
        raise UserError(f"--{role}quantize {quantize} needs --{role}lora_dim and --only_optimize_lora")
    if zero_stage == 3:
        raise UserError(f"--{role}quantize {quantize} needs --{role}zero_stage 0, 1 or 2: ZeRO 3 can't split 4 bits")
    if runtime.dtype == "fp16":
        raise UserError(f"--{role}quantize {quantize} needs --dtype bf16: DeepSpeed's fp16 would convert the weights")


def _check_adaptation(adaptation: AdaptationConfig, adapters: Sequence[AdapterSettings | None], flags: str) -> None:
    _check_positive(adaptation, "lora_alpha")
    if adaptation.only_optimize_lora and not any(adapters):
        raise UserError(f"--only_optimize_lora needs {flags}, the rank of the adapter")


def _check_rollout(rollout: RolloutConfig, ppo: PPOUpdateConfig) -> None:
    _check_at_least_one(rollout, "per_device_generation_batch_size", "generation_batches")
    _check_at_least_one(rollout, "max_prompt_seq_len", "max_answer_seq_len")
    _check_at_least_one(ppo, "per_device_training_batch_size", "ppo_epochs")
    _check_positive(rollout, "temperature")
    _check_positive(ppo, "policy_clip", "value_clip", "reward_clip")
    _check_not_negative(rollout, "sampling_top_k")
    _check_not_negative(ppo, "kl_ctl")
    if not 0 < rollout.sampling_top_p <= 1:
        raise UserError(f"--sampling_top_p must be above 0 and at most 1, got {rollout.sampling_top_p}")
    for flag in ("gamma", "lam"):
        if not 0 <= getattr(ppo, flag) <= 1:
            raise UserError(f"--{flag} must be between 0 and 1, got {getattr(ppo, flag)}")
    rows = rollout.generation_batches * rollout.per_device_generation_batch_size
    if rows % ppo.per_device_training_batch_size:
        raise UserError(
            f"--per_device_training_batch_size {ppo.per_device_training_batch_size} does not divide the {rows} rows of "
            "--generation_batches times --per_device_generation_batch_size; choose a divisor"
        )


def _check_shaping(shaping: ShapingConfig, ppo: PPOUpdateConfig, regularizer: RegularizerConfig) -> None:
    _check_positive(ppo, "value_loss_coef")
    _check_not_negative(ppo, "entropy_coef")
    _check_not_negative(shaping, "missing_eos_penalty")
    _check_at_least_one(shaping, "penalty_horizon")
    if ppo.dual_clip is not None and not ppo.dual_clip > 1:
        raise UserError(f"--dual_clip must be above 1, got {ppo.dual_clip}; 3 is usual")
    if ppo.early_stop_kl is not None:
        _check_positive(ppo, "early_stop_kl")
    if ppo.max_tokens_per_micro_batch is not None:
        _check_at_least_one(ppo, "max_tokens_per_micro_batch")
    free = isinstance(regularizer, DivergenceConfig) and regularizer.f_div == "none"
    for flag in ("penalty_clip", "penalty_target"):
        if getattr(shaping, flag) is not None and free:
            raise UserError(f"--{flag} has no effect with --f_div none, which has no penalty; drop it")
    if shaping.penalty_clip is not None:
        _check_not_negative(shaping, "penalty_clip")
    if shaping.penalty_target is None and shaping.penalty_horizon != ShapingConfig.penalty_horizon:
        raise UserError("--penalty_horizon belongs to --penalty_target; name a target or drop it")
    if shaping.penalty_target is not None:
        _check_positive(shaping, "penalty_target")
        if ppo.kl_ctl == 0:
            raise UserError("--penalty_target needs a --kl_ctl above 0 to start from")


def _check_macro_actions(macro: MacroActionConfig) -> None:
    _check_at_least_one(macro, "ngram")
    condition = macro.termination_condition
    if macro.ngram != 1 and condition not in ("fixed", "parsing"):
        raise UserError(f"--ngram {macro.ngram} has no effect with --termination_condition {condition}; drop it")
    for flag, owner, start in (("repeat_times", "randomized", 3), ("parser_cutoff", "parsing", 5)):
        value = getattr(macro, flag)
        if condition == owner and value is None:
            raise UserError(f"--termination_condition {owner} needs --{flag}; --{flag} {start} is a start")
        if condition != owner and value is not None:
            raise UserError(f"--{flag} belongs to --termination_condition {owner}, got {condition}; drop it")
        if value is not None:
            _check_at_least_one(macro, flag)


def _check_regularizer(regularizer: RegularizerConfig) -> None:
    match regularizer:
        case DivergenceConfig():
            _check_divergence(regularizer)
        case WassersteinConfig():
            _check_wasserstein(regularizer)


def _check_divergence(divergence: DivergenceConfig) -> None:
    if not 0 < divergence.f_div_alpha < 1:
        raise UserError(f"--f_div_alpha must lie between 0 and 1, got {divergence.f_div_alpha}")
    _check_read(divergence, divergence.f_div == "alpha", "--f_div alpha", "f_div_alpha")
    if divergence.f_div_low_var and divergence.f_div not in ("rkl", "fkl"):
        raise UserError(f"--f_div_low_var works with --f_div rkl or fkl, got {divergence.f_div}; drop it")
    if divergence.kl_estimator != "k1":
        if divergence.f_div != "rkl":
            raise UserError(f"--kl_estimator belongs to --f_div rkl, got {divergence.f_div}; drop it")
        if divergence.f_div_low_var:
            raise UserError("--f_div_low_var is --kl_estimator k3; pass one of the two")


def _check_wasserstein(wasserstein: WassersteinConfig) -> None:
    advice = {"cost_dim": 512, "top_k": 128, "max_iter": 10, "block_size": 1024}
    for flag, paper in advice.items():
        if getattr(wasserstein, flag) < 1:
            raise UserError(
                f"--{flag} must be at least 1, got {getattr(wasserstein, flag)}; the paper's commands use {paper}"
            )
    if not (wasserstein.epsilon > 0 and math.isfinite(wasserstein.epsilon)):
        raise UserError(f"--epsilon must be above 0, got {wasserstein.epsilon}; the paper's commands use 0.01")
    _check_not_negative(wasserstein, "tol")
    if wasserstein.far_cost is not None and wasserstein.far_cost <= 0:
        raise UserError(f"--far_cost must be above 0, got {wasserstein.far_cost}; leave it out for the median distance")
    if not 0 <= wasserstein.gaussian_perturb < 1:
        raise UserError(f"--gaussian_perturb must be at least 0 and below 1, got {wasserstein.gaussian_perturb}")
    if wasserstein.debias and wasserstein.transport != "capped":
        raise UserError("--debias needs --transport capped: the truncated problem has no solution to debias")
    if wasserstein.normalize and wasserstein.transport != "truncated":
        raise UserError("--normalize belongs to --transport truncated; the capped potential has a gauge of its own")
    if wasserstein.far_cost is not None and wasserstein.transport != "capped":
        raise UserError("--far_cost needs --transport capped; truncated transport moves nothing between far tokens")


def _check_reward(reward: RewardConfig, models: ActorCriticConfig) -> None:
    match reward:
        case LearnedRewardConfig():
            if models.critic_model_name_or_path is None:
                raise UserError("--critic_model_name_or_path is missing; name the step_<n> folder that step 2 wrote")
            _check_weighted_rewards(reward)
        case UnitTestRewardConfig():
            check_unit_tests(reward)


def check_unit_tests(reward: UnitTestRewardConfig) -> None:
    """Raise UserError for settings of the grading that cannot work."""
    _check_positive(reward, "test_time_limit")
    _check_not_negative(reward, "max_tests", "grading_workers")
    if reward.test_memory_limit_mb < LEAST_TEST_MEMORY_MB:
        raise UserError(
            f"--test_memory_limit_mb must be at least {LEAST_TEST_MEMORY_MB}, got {reward.test_memory_limit_mb}; "
            "Python and numpy need about half of that"
        )


def _check_weighted_rewards(reward: LearnedRewardConfig) -> None:
    functions, weights = reward.reward_function, reward.reward_function_weight
    if weights and len(weights) != len(functions):
        raise UserError(
            f"--reward_function_weight has {len(weights)} numbers for {len(functions)} functions; give one for each"
        )
    for flag, values in (("reward_model_weight", [reward.reward_model_weight]), ("reward_function_weight", weights)):
        if not all(math.isfinite(value) for value in values):
            raise UserError(f"--{flag} must be finite, got {values}")
    if not functions and reward.reward_model_weight == 0:
        raise UserError("--reward_model_weight 0 leaves nothing that scores answers; name a --reward_function")


def _check_read(section: Any, read: bool, owner: str, *flags: str) -> None:
    """Raise UserError for a flag with another value than its default that only counts beside `owner`."""
    defaults = {field.name: field.default for field in dataclasses.fields(section)}
    for flag in flags:
        value = getattr(section, flag)
        if not read and value != defaults[flag]:
            raise UserError(f"--{flag} {value} has no effect without {owner}; add that or drop --{flag}")


def _check_zero_stage(flag: str, stage: int) -> None:
    if stage not in (0, 1, 2, 3):
        raise UserError(f"--{flag} must be 0, 1, 2 or 3, got {stage}")


def _check_at_least_one(section: Any, *flags: str) -> None:
    for flag in flags:
        if getattr(section, flag) < 1:
            raise UserError(f"--{flag} must be at least 1, got {getattr(section, flag)}")


def _check_positive(section: Any, *flags: str) -> None:
    for flag in flags:
        value = getattr(section, flag)
        if not (value > 0 and math.isfinite(value)):
            raise UserError(f"--{flag} must be above 0, got {value}")


def _check_not_negative(section: Any, *flags: str) -> None:
    for flag in flags:
        value = getattr(section, flag)
        if not (value >= 0 and math.isfinite(value)):
            raise UserError(f"--{flag} must not be negative, got {value}")

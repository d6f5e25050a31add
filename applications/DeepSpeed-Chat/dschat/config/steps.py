"""The settings of each step: sections composed, checked against each other, and read from the command line or YAML."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from transformers.hf_argparser import HfArgumentParser

from dschat.config.retired import reject_unknown_flags
from dschat.config.sections import (
    ActorCriticConfig,
    DataConfig,
    DivergenceConfig,
    GuardConfig,
    LearnedRewardConfig,
    MonitoringConfig,
    OutputConfig,
    PPOUpdateConfig,
    RolloutConfig,
    RuntimeConfig,
    SavingConfig,
    ScheduleConfig,
    SFTDataConfig,
    SupervisedConfig,
    WassersteinConfig,
)
from dschat.errors import UserError

RegularizerConfig = DivergenceConfig | WassersteinConfig
RewardConfig = LearnedRewardConfig

SFT_DEFAULTS = {"learning_rate": 1e-3}
PPO_DEFAULTS = {"warmup_ratio": 0.1}


@dataclass(frozen=True)
class RewardTrainingConfig:
    """Settings of step 2."""

    data: DataConfig
    """Texts and their share."""
    training: SupervisedConfig
    """Model, batches, optimizer."""
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

    def check(self) -> None:
        """Raise UserError for the first setting that cannot work."""
        _check_common(self.data, self.schedule, self.runtime, self.output)
        _check_saving(self.saving, self.output)
        _check_at_least_one(self.guards, "max_skipped_steps")
        _check_supervised(self.training)


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
    rollout: RolloutConfig
    """Sampling."""
    ppo: PPOUpdateConfig
    """Rewards, advantages, losses."""
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

    def check(self) -> None:
        """Raise UserError for the first setting that cannot work."""
        _check_common(self.data, self.schedule, self.runtime, self.output)
        _check_saving(self.saving, self.output)
        _check_at_least_one(self.guards, "max_skipped_steps")
        _check_rollout(self.rollout, self.ppo)
        _check_regularizer(self.regularizer)
        for flag in ("actor_zero_stage", "critic_zero_stage"):
            _check_zero_stage(flag, getattr(self.models, flag))
        _check_positive(self.models, "actor_learning_rate", "critic_learning_rate")
        _check_not_negative(self.monitoring, "eval_steps")
        _check_at_least_one(self.monitoring, "eval_prompts", "print_answers_interval")

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
        raise UserError(message.replace("the following arguments are required", "missing"))


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
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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


def _check_regularizer(regularizer: RegularizerConfig) -> None:
    match regularizer:
        case DivergenceConfig():
            _check_divergence(regularizer)
        case WassersteinConfig():
            _check_wasserstein(regularizer)


def _check_divergence(divergence: DivergenceConfig) -> None:
    if not 0 < divergence.f_div_alpha < 1:
        raise UserError(f"--f_div_alpha must lie between 0 and 1, got {divergence.f_div_alpha}")
    if divergence.f_div_low_var and divergence.f_div not in ("rkl", "fkl"):
        raise UserError(f"--f_div_low_var works with --f_div rkl or fkl, got {divergence.f_div}; drop it")
    _check_not_negative(divergence, "penalty_clip")


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

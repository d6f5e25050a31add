"""The settings of each step: sections composed, and checked against each other."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from dschat.config.bounds import check_bounds
from dschat.config.data import DataConfig, SFTDataConfig
from dschat.config.flag import Section
from dschat.config.lora import (
    ActorCriticLoraConfig,
    AdaptationConfig,
    AdapterSettings,
    LoraConfig,
    check_alone,
    check_quantization,
)
from dschat.config.needs import check_needs
from dschat.config.parse import parse_step
from dschat.config.ppo import (
    ActorCriticConfig,
    AveragingConfig,
    MacroActionConfig,
    MonitoringConfig,
    PPOUpdateConfig,
    RolloutConfig,
    ShapingConfig,
    UnsupervisedConfig,
    check_micro_batches,
    check_shaping,
)
from dschat.config.regularizers import RegularizerConfig
from dschat.config.rewards import LearnedRewardConfig, RewardConfig
from dschat.config.runtime import GuardConfig, OutputConfig, RuntimeConfig, SavingConfig, check_start
from dschat.config.training import ScheduleConfig, SupervisedConfig
from dschat.errors import UserError

SFT_DEFAULTS = {"learning_rate": 1e-3}
PPO_DEFAULTS = {"warmup_ratio": 0.1}


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

    def check(self, given: Collection[str] = ()) -> None:
        """Raise UserError for the first setting that cannot work.

        Args:
            given: names of the flags that were given, which must have an effect.
        """
        _check_sections(self)
        check_start(self.output, self.saving)
        check_quantization(
            self.lora.quantize, self.adapter, "", zero_stage=self.training.zero_stage, dtype=self.runtime.dtype
        )
        check_alone(self.adaptation, self.adapter, flags="--lora_dim")
        check_needs(self, given)


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

    def check(self, given: Collection[str] = ()) -> None:
        """Raise UserError for the first setting that cannot work.

        Args:
            given: names of the flags that were given, which must have an effect.
        """
        _check_sections(self)
        check_start(self.output, self.saving)
        check_micro_batches(self.rollout, self.ppo, self.unsupervised)
        check_shaping(self.shaping, self.ppo, self.regularizer)
        if self.reward.uses_reward_model and not self.uses_reward_model:
            functions_alone = isinstance(self.reward, LearnedRewardConfig) and bool(self.reward.reward_function)
            if not functions_alone or "reward_model_weight" in given:
                raise UserError(
                    "--critic_model_name_or_path is missing; name the step_<n> folder that step 2 wrote, or score with "
                    "a --reward_function alone"
                )
        if self.ppo.early_stop_kl is not None and self.batches(1).updates == 1:
            raise UserError(
                "--early_stop_kl has no effect where a PPO step makes one optimizer step; raise --ppo_epochs or drop it"
            )
        self._check_adapters()
        check_needs(self, given)

    def _check_adapters(self) -> None:
        models, lora, dtype = self.models, self.lora, self.runtime.dtype
        check_quantization(
            lora.actor_quantize, self.actor_adapter, "actor_", zero_stage=models.actor_zero_stage, dtype=dtype
        )
        check_quantization(
            lora.critic_quantize, self.critic_adapter, "critic_", zero_stage=models.critic_zero_stage, dtype=dtype
        )
        check_alone(
            self.adaptation, self.actor_adapter, self.critic_adapter, flags="--actor_lora_dim or --critic_lora_dim"
        )
        if models.offload_reference_model and self._reference_is_actor and not self.averaging.enable_ema:
            raise UserError(
                "--offload_reference_model has no effect: the reference is the actor without its adapter; drop it"
            )

    @property
    def uses_reward_model(self) -> bool:
        """Whether a checkpoint of step 2 gives scores: not without one, where functions alone score."""
        return self.reward.uses_reward_model and self.models.critic_model_name_or_path is not None

    @property
    def effective_penalty_clip(self) -> float | None:
        """Bound of coefficient times penalty that holds, None for none: --penalty_clip, or the regularizer's own."""
        clip = self.shaping.penalty_clip
        return self.regularizer.default_clip if clip is None else clip or None

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
    return parse_step(SFTConfig, arguments, defaults=SFT_DEFAULTS)


def parse_reward_config(arguments: Sequence[str]) -> RewardTrainingConfig:
    """Read the settings of step 2 from command-line words; UserError for any that cannot work."""
    return parse_step(RewardTrainingConfig, arguments)


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
    variants: dict[str, type[Section]] = {"regularizer": regularizer, "reward": reward}
    return parse_step(PPOConfig, arguments, variants=variants, defaults=PPO_DEFAULTS)


def _check_sections(config: Any) -> None:
    """Raise UserError for the first value out of bounds, then for the first section that contradicts itself."""
    sections = [getattr(config, field.name) for field in dataclasses.fields(config)]
    for section in sections:
        check_bounds(section)
    for section in sections:
        section.check()

"""The four models of step 3 on DeepSpeed: actor and critic in training, reference and reward model frozen."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from dschat.config.lora import AdapterSettings
from dschat.config.steps import PPOConfig
from dschat.engines import Role, frozen, trained
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import CheckedModel
from dschat.models.lora import FrozenModel, inner_module
from dschat.models.reward_model import hugging_face_model, load_token_scorer
from dschat.rlhf.scoring import RolloutModels
from dschat.runtime.deepspeed_config import TORCH_DTYPES, Optimization, Placement, training_stage, usable_dtype
from dschat.runtime.deepspeed_overrides import TrainingFlags
from dschat.runtime.distributed import whole_copy
from dschat.runtime.memory import MemoryMeter
from dschat.runtime.model_folders import save_model
from dschat.runtime.moving_average import MovingAverage
from dschat.runtime.training_engine import TrainingEngine

TEXT_PASSES = 2
"""Backward passes of the actor per micro-batch where text is mixed in: one over text, one over answers."""


@dataclass(frozen=True)
class Checkpoints:
    """What actor and reference, and what critic and reward model start from; the same where step 2 gave nothing."""

    actor: CheckedModel
    critic: CheckedModel
    fresh_critic_head: bool = False
    """Whether the critic's checkpoint may be a language model, which then gets a new score head."""


@dataclass(frozen=True)
class PPORoles:
    """What each of the models is, in the order in which they are loaded."""

    actor: Role
    reference: Role
    critic: Role
    reward: Role | None
    """None where nothing asks for a reward model's scores."""

    def all(self) -> list[Role]:
        """Those that there are."""
        return [role for role in (self.actor, self.reference, self.critic, self.reward) if role is not None]


def ppo_roles(config: PPOConfig, checkpoints: Checkpoints, *, total_updates: int) -> PPORoles:
    """The models that the settings ask for.

    Args:
        config: settings of step 3.
        checkpoints: what they start from.
        total_updates: optimizer steps of the whole run.
    """
    models, offload = config.models, config.runtime.offload
    dtype = usable_dtype(config.runtime)
    load_critic = partial(load_token_scorer, fresh_head=checkpoints.fresh_critic_head)

    def optimization(
        learning_rate: float, weight_decay: float, adapter: AdapterSettings | None, *, passes: int = 1
    ) -> Optimization:
        return Optimization(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            micro_batch_size=config.ppo.per_device_training_batch_size,
            schedule=config.schedule,
            total_updates=total_updates,
            passes=passes,
            lora_learning_rate=adapter.learning_rate if adapter else None,
        )

    actor = Role(
        "actor",
        load_causal_lm,
        checkpoints.actor,
        Placement(training_stage(models.actor_zero_stage, dtype), dtype, offload),
        optimization(
            models.actor_learning_rate,
            models.actor_weight_decay,
            config.actor_adapter,
            passes=TEXT_PASSES if config.unsupervised.active else 1,
        ),
        dropout=models.actor_dropout,
        gradient_checkpointing=models.actor_gradient_checkpointing,
        flags=_flags("actor"),
        adapter=config.actor_adapter,
    )
    reference = Role(
        "reference",
        load_causal_lm,
        checkpoints.actor,
        Placement(models.reference_zero_stage, dtype, models.offload_reference_model),
        dropout=0.0,
        adapter=config.actor_adapter,
    )
    critic = Role(
        "critic",
        load_critic,
        checkpoints.critic,
        Placement(training_stage(models.critic_zero_stage, dtype), dtype, offload),
        optimization(models.critic_learning_rate, models.critic_weight_decay, config.critic_adapter),
        dropout=models.critic_dropout,
        gradient_checkpointing=models.critic_gradient_checkpointing,
        flags=_flags("critic"),
        adapter=config.critic_adapter,
    )
    reward = Role(
        "reward model",
        load_critic,
        checkpoints.critic,
        Placement(models.reward_zero_stage, dtype, offload),
        dropout=0.0,
        adapter=config.critic_adapter,
    )
    return PPORoles(actor, reference, critic, reward if config.uses_reward_model else None)


def _flags(role: str) -> TrainingFlags:
    return TrainingFlags(
        learning_rate=f"--{role}_learning_rate",
        weight_decay=f"--{role}_weight_decay",
        micro_batch_size="--per_device_training_batch_size",
        zero_stage=f"--{role}_zero_stage",
        gradient_checkpointing=f"--{role}_gradient_checkpointing",
    )


class DeepSpeedRLHFEngine:
    """Loads and holds the four models.

    Attributes:
        actor, critic: in training.
        reference, reward: frozen; engines where partitioned by ZeRO-3, plain modules otherwise; where a LoRA adapter is
            trained alone, actor and critic without theirs. No reward model is loaded where nothing asks for its scores.
        vocabulary: the ids that tokens have.
        average: the actor's moving average, None without --enable_ema.
        memory: what loading each model took.
        checkpoints: what the models started from.
        tokenizer: of all models.
        dtype: precision of weights and activations.
        device: where this rank computes.
    """

    actor: TrainingEngine
    critic: TrainingEngine
    reference: FrozenModel
    reward: FrozenModel | None
    average: MovingAverage | None

    def __init__(
        self, config: PPOConfig, checkpoints: Checkpoints, *, total_updates: int, device: torch.device
    ) -> None:
        """
        Args:
            config: settings of step 3.
            checkpoints: what the models start from.
            total_updates: optimizer steps of the whole run.
            device: where this rank computes.
        """
        roles = ppo_roles(config, checkpoints, total_updates=total_updates)
        self.checkpoints = checkpoints
        self.tokenizer = checkpoints.actor.tokenizer
        self.vocabulary = checkpoints.actor.vocabulary
        self.dtype = TORCH_DTYPES[roles.actor.placement.dtype]
        self.device = device
        self.memory = MemoryMeter(device)
        self.actor = trained(roles.actor, config.runtime, self.memory)
        self.reference = frozen(roles.reference, config.runtime, self.memory, twin=self.actor)
        self.average = None
        if config.averaging.enable_ema:
            self.average = MovingAverage(
                self.actor.module,
                decay=config.averaging.ema_decay,
                device=device,
                in_host_memory=config.models.offload_reference_model,
            )
        self.critic = trained(roles.critic, config.runtime, self.memory)
        self.reward = None
        if roles.reward is not None:
            self.reward = frozen(roles.reward, config.runtime, self.memory, twin=self.critic)

    def rollout_models(self) -> RolloutModels:
        """The models that scoring runs."""
        return RolloutModels(
            actor=self.actor,
            reference=self.reference,
            critic=self.critic,
            model_class=type(self.actor.module),
            vocabulary=self.vocabulary,
        )

    def reference_embeddings(self) -> Tensor:
        """The reference's input embeddings [V, D], gaps of the vocabulary included, whole on every rank.

        All ranks call it together.
        """
        weight = hugging_face_model(inner_module(self.reference)).get_input_embeddings().weight
        assert isinstance(weight, nn.Parameter)
        return whole_copy(weight)[: self.vocabulary.size]

    def update_average(self) -> None:
        """Take the actor into its moving average, after an optimizer step; nothing without --enable_ema."""
        if self.average is not None:
            self.average.update()

    @property
    def trained(self) -> dict[str, TrainingEngine]:
        """The engines in training, by role."""
        return {"actor": self.actor, "critic": self.critic}

    @property
    def saved_roles(self) -> tuple[str, ...]:
        """Names of the folders that `save` writes."""
        return (*self.trained, *(() if self.average is None else ("actor_ema",)))

    def save(self, folder: Path) -> None:
        """Write the `saved_roles` below `folder` as Hugging Face folders; all ranks call it together."""
        for role, engine in self.trained.items():
            save_model(hugging_face_model(engine.module), self.tokenizer, folder / role)
        if self.average is not None:
            actor = hugging_face_model(self.actor.module)
            save_model(actor, self.tokenizer, folder / "actor_ema", read=self.average.whole_state_dict)

    def describe_memory(self) -> list[str]:
        """One line per model: what it holds, and what it took at most to load it."""
        models = {"actor": self.actor, "reference": self.reference, "critic": self.critic}
        if self.reward is not None:
            models["reward model"] = self.reward
        return [self.memory.describe(role, model) for role, model in models.items()]

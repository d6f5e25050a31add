"""The four models of step 3 on DeepSpeed: actor and critic in training, reference and reward model frozen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from dschat.config.lora import AdapterSettings
from dschat.config.steps import PPOConfig
from dschat.models.causal_lm import enable_gradient_checkpointing, load_causal_lm
from dschat.models.checked import CheckedModel
from dschat.models.lora import WithoutAdapter, add_adapter
from dschat.models.reward_model import load_token_scorer
from dschat.rlhf.scoring import RolloutModels
from dschat.runtime.deepspeed_config import (
    TORCH_DTYPES,
    Optimization,
    Placement,
    frozen_model,
    inference_settings,
    load_partitioned,
    training_engine,
    training_stage,
    usable_dtype,
)
from dschat.runtime.deepspeed_overrides import Trained, TrainingFlags, blaming, overridden_settings, overrides_of
from dschat.runtime.distributed import whole_copy
from dschat.runtime.memory import MemoryMeter
from dschat.runtime.model_folders import export_model
from dschat.runtime.moving_average import MovingAverage

logger = logging.getLogger(__name__)

TEXT_PASSES = 2
"""Backward passes of the actor per micro-batch where text is mixed in: one over text, one over answers."""


@dataclass(frozen=True)
class Checkpoints:
    """What actor and reference, and what critic and reward model start from; the same where step 2 gave nothing."""

    actor: CheckedModel
    critic: CheckedModel
    fresh_critic_head: bool = False
    """Whether the critic's checkpoint may be a language model, which then gets a new score head."""


def trained_models(config: PPOConfig, dtype: str, *, total_updates: int) -> dict[str, Trained]:
    """How actor and critic lie on the devices and are trained, as the flags say.

    Args:
        config: settings of step 3.
        dtype: as `usable_dtype` gives it.
        total_updates: optimizer steps in the whole run.
    """
    models = config.models

    def trained(
        role: str,
        learning_rate: float,
        weight_decay: float,
        stage: int,
        adapter: AdapterSettings | None,
        passes: int = 1,
    ) -> Trained:
        optimization = Optimization(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            micro_batch_size=config.ppo.per_device_training_batch_size,
            schedule=config.schedule,
            total_updates=total_updates,
            passes=passes,
            lora_learning_rate=adapter.learning_rate if adapter else None,
        )
        flags = TrainingFlags(
            learning_rate=f"--{role}_learning_rate",
            weight_decay=f"--{role}_weight_decay",
            micro_batch_size="--per_device_training_batch_size",
            zero_stage=f"--{role}_zero_stage",
            gradient_checkpointing=f"--{role}_gradient_checkpointing",
        )
        return Trained(Placement(training_stage(stage, dtype), dtype, config.runtime.offload), optimization, flags)

    actor = trained(
        "actor",
        models.actor_learning_rate,
        models.actor_weight_decay,
        models.actor_zero_stage,
        config.actor_adapter,
        passes=TEXT_PASSES if config.unsupervised.active else 1,
    )
    critic = trained(
        "critic",
        models.critic_learning_rate,
        models.critic_weight_decay,
        models.critic_zero_stage,
        config.critic_adapter,
    )
    return {"actor": actor, "critic": critic}


class DeepSpeedRLHFEngine:
    """Builds and holds the four models.

    Attributes:
        actor, critic: DeepSpeed engines in training.
        reference, reward: frozen; engines where partitioned by ZeRO-3, plain modules otherwise; where a LoRA adapter is
            trained alone, actor and critic without theirs. No reward model is loaded where nothing asks for its scores.
        vocabulary: the ids that tokens have.
        average: the actor's moving average, None without --enable_ema.
        memory: what loading each model took.
    """

    actor: Any
    critic: Any
    reference: nn.Module | WithoutAdapter
    reward: nn.Module | WithoutAdapter | None
    average: MovingAverage | None

    def __init__(
        self,
        config: PPOConfig,
        checkpoints: Checkpoints,
        *,
        total_updates: int,
        device: torch.device,
    ) -> None:
        self._config = config
        self._tokenizer = checkpoints.actor.tokenizer
        self.vocabulary = checkpoints.actor.vocabulary
        self._device = device
        self._dtype = usable_dtype(config.runtime)
        self.memory = MemoryMeter(device)
        models = config.models
        logger.info("loading the actor from %s", checkpoints.actor.path)
        load_actor = partial(self._load_causal_lm, checkpoints.actor)
        trained = trained_models(config, self._dtype, total_updates=total_updates)
        self.actor = self._trained(
            "actor",
            partial(
                load_actor,
                dropout=models.actor_dropout,
                checkpointing=models.actor_gradient_checkpointing,
                adapter=config.actor_adapter,
            ),
            trained["actor"],
        )
        self.reference = self._frozen(
            "reference",
            self.actor,
            config.actor_adapter,
            partial(load_actor, dropout=0.0),
            Placement(models.reference_zero_stage, self._dtype, models.offload_reference_model),
        )
        self.average = self._moving_average() if config.averaging.enable_ema else None
        logger.info("loading the critic from %s", checkpoints.critic.path)
        load_critic = partial(self._load_scorer, checkpoints.critic, fresh_head=checkpoints.fresh_critic_head)
        self.critic = self._trained(
            "critic",
            partial(
                load_critic,
                dropout=models.critic_dropout,
                checkpointing=models.critic_gradient_checkpointing,
                adapter=config.critic_adapter,
            ),
            trained["critic"],
        )
        self.reward = None
        if config.uses_reward_model:
            self.reward = self._frozen(
                "reward model",
                self.critic,
                config.critic_adapter,
                partial(load_critic, dropout=0.0),
                Placement(models.reward_zero_stage, self._dtype, config.runtime.offload),
            )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and activations."""
        return TORCH_DTYPES[self._dtype]

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
        module = getattr(self.reference, "module", self.reference)
        return whole_copy(module.get_input_embeddings().weight)[: self.vocabulary.size]

    def update_average(self) -> None:
        """Take the actor into its moving average, after an optimizer step; nothing without --enable_ema."""
        if self.average is not None:
            self.average.update()

    @property
    def saved_roles(self) -> tuple[str, ...]:
        """Names of the folders that `save` writes."""
        return ("actor", "critic") if self.average is None else ("actor", "critic", "actor_ema")

    def save(self, folder: Path) -> None:
        """Write the `saved_roles` below `folder` as Hugging Face folders; all ranks call it together."""
        export_model(self.actor.module, self._tokenizer, folder / "actor")
        export_model(self.critic.module.model, self._tokenizer, folder / "critic")
        if self.average is not None:
            export_model(self.actor.module, self._tokenizer, folder / "actor_ema", read=self.average.whole_state_dict)

    def _moving_average(self) -> MovingAverage:
        return MovingAverage(
            self.actor.module,
            decay=self._config.averaging.ema_decay,
            device=self._device,
            in_host_memory=self._config.models.offload_reference_model,
        )

    def _load_causal_lm(
        self,
        checked: CheckedModel,
        *,
        dropout: float | None,
        checkpointing: bool = False,
        adapter: AdapterSettings | None = None,
    ) -> PreTrainedModel:
        model = load_causal_lm(
            checked,
            dtype=self.dtype,
            dropout=dropout,
            four_bit=adapter is not None and adapter.quantized,
        )
        if adapter is not None:
            add_adapter(model, adapter, seed=self._config.runtime.seed)
        if checkpointing:
            enable_gradient_checkpointing(model)
        return model

    def _load_scorer(
        self,
        checked: CheckedModel,
        *,
        fresh_head: bool,
        dropout: float | None,
        checkpointing: bool = False,
        adapter: AdapterSettings | None = None,
    ) -> nn.Module:
        scorer = load_token_scorer(
            checked,
            fresh_head=fresh_head,
            dtype=self.dtype,
            dropout=dropout,
            four_bit=adapter is not None and adapter.quantized,
        )
        if adapter is not None:
            add_adapter(scorer.model, adapter, seed=self._config.runtime.seed)
        if checkpointing:
            enable_gradient_checkpointing(scorer.model)
        return scorer

    def _trained(self, role: str, load: partial[nn.Module], trained: Trained) -> Any:
        runtime = self._config.runtime
        overrides = overrides_of(runtime, trained)
        settings = overridden_settings(trained, overrides)
        with self.memory.during(role):
            model = load_partitioned(load, settings)
            with blaming(runtime, overrides):
                return training_engine(model, settings, trained.optimization)

    def _frozen(
        self, role: str, trained: Any, adapter: AdapterSettings | None, load: partial[nn.Module], placement: Placement
    ) -> nn.Module | WithoutAdapter:
        """The frozen copy of a trained model: loaded, or found inside it where nothing but the adapter changes."""
        if adapter is not None and adapter.alone:
            return WithoutAdapter(trained)
        settings = inference_settings(placement)
        with self.memory.during(role):
            return frozen_model(load_partitioned(load, settings), settings, self._device)

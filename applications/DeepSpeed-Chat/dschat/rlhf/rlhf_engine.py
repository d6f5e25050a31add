"""The four models of step 3 on DeepSpeed: actor and critic in training, reference and reward model frozen."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from dschat.config.steps import PPOConfig
from dschat.models.causal_lm import enable_gradient_checkpointing, load_causal_lm
from dschat.models.reward_model import load_token_scorer
from dschat.rlhf.scoring import ScoredModels
from dschat.runtime.checkpoint import export_model
from dschat.runtime.deepspeed_config import (
    TORCH_DTYPES,
    Optimization,
    Placement,
    frozen_model,
    inference_settings,
    load_partitioned,
    training_engine,
    training_settings,
    training_stage,
    usable_dtype,
)
from dschat.runtime.distributed import whole_copy

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelPaths:
    """Checked names or folders of the two checkpoints."""

    actor: str
    critic: str


class DeepSpeedRLHFEngine:
    """Builds and holds the four models.

    Attributes:
        actor, critic: DeepSpeed engines in training.
        reference, reward: frozen; engines where partitioned by ZeRO-3, plain modules otherwise. No reward model is
            loaded where nothing asks for its scores.
    """

    actor: Any
    critic: Any
    reference: nn.Module
    reward: nn.Module | None

    def __init__(
        self,
        config: PPOConfig,
        paths: ModelPaths,
        tokenizer: PreTrainedTokenizerBase,
        *,
        total_updates: int,
        device: torch.device,
    ) -> None:
        self._config = config
        self._tokenizer = tokenizer
        self._device = device
        self._dtype = usable_dtype(config.runtime)
        models = config.models
        logger.info("loading the actor from %s", paths.actor)
        load_actor = partial(self._load_causal_lm, paths.actor)
        self.actor = self._trained(
            partial(load_actor, dropout=models.actor_dropout, checkpointing=models.actor_gradient_checkpointing),
            self._placement(models.actor_zero_stage, config.runtime.offload),
            self._optimization(models.actor_learning_rate, models.actor_weight_decay, total_updates),
        )
        self.reference = self._frozen(
            partial(load_actor, dropout=0.0, checkpointing=False),
            Placement(models.reference_zero_stage, self._dtype, models.offload_reference_model),
        )
        logger.info("loading the critic from %s", paths.critic)
        load_critic = partial(self._load_scorer, paths.critic)
        self.critic = self._trained(
            partial(load_critic, dropout=models.critic_dropout, checkpointing=models.critic_gradient_checkpointing),
            self._placement(models.critic_zero_stage, config.runtime.offload),
            self._optimization(models.critic_learning_rate, models.critic_weight_decay, total_updates),
        )
        self.reward = None
        if config.uses_reward_model:
            self.reward = self._frozen(
                partial(load_critic, dropout=0.0, checkpointing=False),
                Placement(models.reward_zero_stage, self._dtype, config.runtime.offload),
            )

    @property
    def dtype(self) -> torch.dtype:
        """Precision of weights and activations."""
        return TORCH_DTYPES[self._dtype]

    def scored_models(self) -> ScoredModels:
        """The models that scoring runs."""
        return ScoredModels(
            actor=self.actor,
            reference=self.reference,
            critic=self.critic,
            model_class=type(self.actor.module),
            vocab_size=len(self._tokenizer),
        )

    def reference_embeddings(self) -> Tensor:
        """The reference's input embeddings [V, D] of real tokens, whole on every rank; all ranks call it together."""
        module = getattr(self.reference, "module", self.reference)
        return whole_copy(module.get_input_embeddings().weight)[: len(self._tokenizer)]

    def save(self, folder: Path) -> None:
        """Write `folder`/actor and `folder`/critic as Hugging Face folders; all ranks call it together."""
        export_model(self.actor.module, self._tokenizer, folder / "actor")
        export_model(self.critic.module.model, self._tokenizer, folder / "critic")

    def _load_causal_lm(self, path: str, *, dropout: float | None, checkpointing: bool) -> PreTrainedModel:
        model = load_causal_lm(
            path,
            tokenizer_length=len(self._tokenizer),
            dtype=self.dtype,
            dropout=dropout,
            trust_remote_code=self._config.runtime.trust_remote_code,
        )
        if checkpointing:
            enable_gradient_checkpointing(model)
        return model

    def _load_scorer(self, path: str, *, dropout: float | None, checkpointing: bool) -> nn.Module:
        scorer = load_token_scorer(
            path,
            fresh_head=False,
            tokenizer_length=len(self._tokenizer),
            pad_token_id=self._tokenizer.pad_token_id,
            dtype=self.dtype,
            dropout=dropout,
            trust_remote_code=self._config.runtime.trust_remote_code,
        )
        if checkpointing:
            enable_gradient_checkpointing(scorer.model)
        return scorer

    def _placement(self, stage: int, offload: bool) -> Placement:
        return Placement(training_stage(stage, self._dtype), self._dtype, offload)

    def _optimization(self, learning_rate: float, weight_decay: float, total_updates: int) -> Optimization:
        return Optimization(
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            micro_batch_size=self._config.ppo.per_device_training_batch_size,
            schedule=self._config.schedule,
            total_updates=total_updates,
        )

    def _trained(self, load: partial[nn.Module], placement: Placement, optimization: Optimization) -> Any:
        settings = training_settings(placement, optimization, overrides=self._config.runtime.deepspeed_config)
        return training_engine(load_partitioned(load, settings), settings, optimization)

    def _frozen(self, load: partial[nn.Module], placement: Placement) -> nn.Module:
        settings = inference_settings(placement)
        return frozen_model(load_partitioned(load, settings), settings, self._device)

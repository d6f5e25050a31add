"""PPO: prompts to experience, experience to updates. Regularizer and reward source are known by protocol alone."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.steps import PPOConfig
from dschat.data.batches import PromptBatch
from dschat.rlhf.experience import Experience, Rollout, concatenate
from dschat.rlhf.ppo_math import generalized_advantages, policy_loss, shape_rewards, value_loss
from dschat.rlhf.regularizers.base import Regularizer
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
from dschat.rlhf.rollout import AnswerTokens, make_rollout, sample_answers
from dschat.rlhf.scoring import Scores, response_log_probs, response_values, score_rollout
from dschat.runtime.distributed import reduce_sum, world_size
from dschat.runtime.guards import check_finite
from dschat.runtime.metrics import WeightedMeans

SampleAnswers = Callable[[PromptBatch], Tensor]


@dataclass(frozen=True)
class ScoredAnswers:
    """Texts of one rollout with their numbers, for people to read."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    scores: list[float]
    penalties: list[float]
    """Mean penalty per token."""


class DeepSpeedPPOTrainer:
    """Runs the two halves of a PPO step on one rank; all ranks call every method together."""

    def __init__(
        self,
        engine: DeepSpeedRLHFEngine,
        config: PPOConfig,
        regularizer: Regularizer,
        reward_source: RewardSource,
        tokenizer: PreTrainedTokenizerBase,
        tokens: AnswerTokens,
        *,
        device: torch.device,
        sample: SampleAnswers | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            engine: the four models.
            config: settings of step 3.
            regularizer: gives the penalty.
            reward_source: gives the sequence scores.
            tokenizer: of all models.
            tokens: end and padding tokens of an answer.
            device: where this rank computes.
            sample: continues prompts [B, P] to [B, P + R]; default: the actor, as the settings say.
        """
        self._engine = engine
        self._config = config
        self._regularizer = regularizer
        self._reward_source = reward_source
        self._tokenizer = tokenizer
        self._tokens = tokens
        self._device = device
        self._sample = sample or self._sample_from_actor
        self._models = engine.scored_models()

    def generate_experience(
        self, prompts: PromptBatch, means: WeightedMeans, *, step: int
    ) -> tuple[Experience, ScoredAnswers]:
        """Answer prompts and work out advantages.

        Args:
            prompts: [B, P]; the same B on every rank.
            means: receives this rollout's metrics.
            step: its number, for messages.
        """
        self._engine.actor.eval()
        self._engine.critic.eval()
        started = time.perf_counter()
        prompts = prompts.to(self._device)
        rollout = make_rollout(self._sample(prompts), prompts, self._tokens, self._tokenizer)
        generated = time.perf_counter()
        self._reward_source.begin(rollout)
        scores = score_rollout(
            rollout, self._models, self._regularizer, longest_response=self._config.rollout.max_answer_seq_len
        )
        log_probs = torch.stack([scores.log_probs, scores.reference_log_probs])
        check_finite(log_probs, step=step, what="log-probabilities of the answers")
        verdict = self._reward_source.score(rollout)
        _record_verdict(verdict, scores, rollout, means)
        score = verdict.values
        rollout = rollout.without(score.isnan())
        mask, ppo = rollout.response_mask, self._config.ppo
        rewards = shape_rewards(scores.penalty, score, mask, penalty_coef=ppo.kl_ctl, score_clip=ppo.reward_clip)
        advantages, returns = generalized_advantages(rewards, scores.values, mask, gamma=ppo.gamma, lam=ppo.lam)
        experience = Experience(
            sequences=rollout.sequences,
            attention_mask=rollout.attention_mask,
            response_mask=mask,
            log_probs=scores.log_probs,
            values=scores.values,
            advantages=advantages,
            returns=returns,
        )
        self._record_rollout(rollout, score, scores, experience, means)
        means.add("generation_seconds", generated - started, 1.0)
        means.add("scoring_seconds", time.perf_counter() - generated, 1.0)
        means.add("penalty_seconds", scores.penalty_cost.seconds, 1.0)
        if scores.penalty_cost.peak_bytes is not None:
            means.add("penalty_peak_mebibytes", scores.penalty_cost.peak_bytes / 2**20, 1.0)
        return experience, _for_people(rollout, score, scores)

    def train_rlhf(self, experiences: Sequence[Experience], means: WeightedMeans, *, step: int) -> None:
        """Update actor and critic on the experience of one PPO step.

        Every token of an optimizer step weighs the same, however the rows are spread over ranks and micro-batches; a
        rank without a usable row runs the same passes with weight zero.

        Args:
            experiences: of all rollout batches of the step.
            means: receives losses and gradient norms.
            step: its number, for messages and for the order of rows.
        """
        started = time.perf_counter()
        self._engine.actor.train()
        self._engine.critic.train()
        experience = concatenate(experiences, pad_token_id=self._tokens.pad)
        for epoch in range(self._config.ppo.ppo_epochs):
            for window in self._windows(experience, seed=(self._config.runtime.seed, step, epoch)):
                self._update(window, means, step=step)
        means.add("training_seconds", time.perf_counter() - started, 1.0)

    def _sample_from_actor(self, prompts: PromptBatch) -> Tensor:
        gather = self._config.models.enable_zero3_generation_gather
        return sample_answers(self._engine.actor, prompts, self._tokens, self._config.rollout, gather=gather)

    def _windows(self, experience: Experience, *, seed: tuple[int, ...]) -> Iterator[list[Experience]]:
        """Micro-batches in seeded random order, as many together as one optimizer step accumulates."""
        generator = torch.Generator().manual_seed(hash(seed) % 2**63)
        order = torch.randperm(len(experience), generator=generator)
        micro = [experience.rows(rows) for rows in order.split(self._config.ppo.per_device_training_batch_size)]
        accumulation = self._config.schedule.gradient_accumulation_steps
        for start in range(0, len(micro), accumulation):
            yield micro[start : start + accumulation]

    def _update(self, window: Sequence[Experience], means: WeightedMeans, *, step: int) -> None:
        """One optimizer step of both models."""
        tokens = torch.stack([batch.response_mask.sum() for batch in window]).sum()
        all_tokens = reduce_sum(tokens.double()).clamp_min(1.0)
        # DeepSpeed averages over ranks and accumulated micro-batches; undo both to get a mean over tokens
        scale = (world_size() * len(window) / all_tokens).float()
        actor, critic = self._engine.actor, self._engine.critic
        losses: list[Tensor] = []
        for number, batch in enumerate(window, start=1):
            actor_loss, clipped, log_ratio = self._actor_loss(batch)
            actor.backward(actor_loss * scale)
            critic_loss = self._critic_loss(batch)
            critic.backward(critic_loss * scale)
            losses += [actor_loss.detach(), critic_loss.detach()]
            if number == len(window):
                check_finite(torch.stack(losses), step=step, what="PPO losses")
            actor.step()
            critic.step()
            weight = batch.response_mask.sum()
            means.add("actor_loss", losses[-2], weight)
            means.add("critic_loss", losses[-1], weight)
            means.add("clipped_share", clipped, weight)
            means.add("policy_change", log_ratio, weight)
        for name, engine in (("actor", actor), ("critic", critic)):
            norm = engine.get_global_grad_norm()
            if norm is not None:
                means.add(f"{name}_grad_norm", float(norm), 1.0)

    def _actor_loss(self, batch: Experience) -> tuple[Tensor, Tensor, Tensor]:
        """Summed loss, number of clipped tokens, and summed k3 estimate of KL(sampling policy || policy)."""
        mask = batch.response_mask
        log_probs = response_log_probs(
            self._engine.actor, self._models, batch.sequences, batch.attention_mask, width=mask.shape[1]
        )
        loss, clipped = policy_loss(
            log_probs, batch.log_probs, batch.advantages, mask, clip=self._config.ppo.policy_clip
        )
        log_ratio = torch.where(mask, log_probs.detach() - batch.log_probs, 0.0)
        return loss, clipped, (log_ratio.expm1() - log_ratio).sum()

    def _critic_loss(self, batch: Experience) -> Tensor:
        mask = batch.response_mask
        values = response_values(self._engine.critic, batch.sequences, batch.attention_mask, width=mask.shape[1])
        return value_loss(values, batch.values, batch.returns, mask, clip=self._config.ppo.value_clip)

    def _record_rollout(
        self, rollout: Rollout, score: Tensor, scores: Scores, experience: Experience, means: WeightedMeans
    ) -> None:
        mask, usable = rollout.response_mask, rollout.usable
        tokens, rows = mask.sum(), usable.sum()
        clip = self._config.ppo.reward_clip
        per_row = {
            "reward": score,
            "reward_square": score.square(),
            "clipped_reward_share": (score.abs() > clip).float(),
            "response_length": mask.sum(dim=-1),
            "ended_share": rollout.ended.float(),
            "penalty_per_answer": scores.penalty.sum(dim=-1),
        }
        for name, values in per_row.items():
            means.add(name, torch.where(usable, values.float(), 0.0).sum(), rows)
        per_token = {
            "penalty": scores.penalty,
            "log_ratio": scores.log_probs - scores.reference_log_probs,
            "value": scores.values,
            "return": experience.returns,
            "advantage": experience.advantages,
        }
        for name, values in per_token.items():
            means.add(name, torch.where(mask, values, 0.0).sum(), tokens)
        means.add("usable_share", rows, usable.numel())


def _record_verdict(verdict: SequenceScores, scores: Scores, rollout: Rollout, means: WeightedMeans) -> None:
    """Metrics of the reward source and the regularizer, over all rows that were scored, also those that are dropped."""
    for name, values in verdict.metrics.items():
        known = ~values.isnan()
        means.add(name, torch.where(known, values, 0.0).sum(), known.sum())
    tokens = rollout.response_mask.sum()
    for name, total in scores.penalty_metrics.items():
        means.add(name, total, tokens)


def _for_people(rollout: Rollout, score: Tensor, scores: Scores) -> ScoredAnswers:
    mask = rollout.response_mask
    penalty = torch.where(mask, scores.penalty, 0.0).sum(dim=-1) / mask.sum(dim=-1).clamp_min(1)
    return ScoredAnswers(
        prompts=rollout.prompts,
        answers=rollout.answers,
        scores=score.tolist(),
        penalties=penalty.tolist(),
    )

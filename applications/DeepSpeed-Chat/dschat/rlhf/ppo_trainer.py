"""PPO: prompts to experience, experience to updates. Regularizer and reward source are known by protocol alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.steps import PPOConfig
from dschat.data.batches import PromptBatch
from dschat.data.plain_text import TextBlocks
from dschat.errors import TrainingFault, UserError
from dschat.generation.base import Generator, Sampling
from dschat.models.causal_lm import real_logits, response_logits, token_entropies, token_log_probs
from dschat.rlhf.constituency import ConstituencyParser
from dschat.rlhf.experience import Experience, Rollout, concatenate
from dschat.rlhf.macro_actions import segment_advantages
from dschat.rlhf.ppo_math import masked_sums, policy_loss, value_loss, whiten
from dschat.rlhf.regularizers.base import Regularizer
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores
from dschat.rlhf.rlhf_engine import TEXT_PASSES, DeepSpeedRLHFEngine
from dschat.rlhf.rollout import make_rollout
from dschat.rlhf.rollout_metrics import (
    ScoredAnswers,
    record_rollout,
    record_segments,
    record_speed,
    record_verdict,
    scored_answers,
)
from dschat.rlhf.row_groups import group_rows
from dschat.rlhf.scoring import Scores, response_values, score_rollout
from dschat.rlhf.segmenter import Segmenter
from dschat.rlhf.shaping import RewardShaper
from dschat.runtime.distributed import rank, reduce_sum, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.guards import check_finite, raise_together
from dschat.runtime.metrics import WeightedMeans
from dschat.runtime.stepping import step_all
from dschat.runtime.throughput import forward_cost, now, peak_flops

Window = list[Experience]
"""The micro-batches of one optimizer step."""


class DeepSpeedPPOTrainer:
    """Runs the two halves of a PPO step on one rank; all ranks call every method together."""

    def __init__(
        self,
        engine: DeepSpeedRLHFEngine,
        config: PPOConfig,
        regularizer: Regularizer,
        reward_source: RewardSource,
        tokenizer: PreTrainedTokenizerBase,
        generator: Generator,
        *,
        device: torch.device,
        parser: ConstituencyParser | None = None,
        text: TextBlocks | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            engine: the four models.
            config: settings of step 3.
            regularizer: gives the penalty.
            reward_source: gives the sequence scores.
            tokenizer: of all models.
            generator: continues prompts with the actor's present weights.
            device: where this rank computes.
            parser: for macro actions by parsing.
            text: what the actor also learns to predict, where the settings mix text in.
        """
        self._engine = engine
        self._config = config
        self._regularizer = regularizer
        self._reward_source = reward_source
        self._tokenizer = tokenizer
        self._pad = int(tokenizer.pad_token_id)
        self._generator = generator
        self._sampling = Sampling(
            temperature=config.rollout.temperature,
            top_k=config.rollout.sampling_top_k,
            top_p=config.rollout.sampling_top_p,
            max_new_tokens=config.rollout.max_answer_seq_len,
        )
        self._generator_is_stale = True
        """Whether the actor's weights may have changed since the generator took them over."""
        self._device = device
        self._text = text
        self._models = engine.scored_models()
        self._segmenter = Segmenter(config.macro_actions, tokenizer, config.runtime.seed, parser)
        self._shaper = RewardShaper(config)
        self._actor_cost = forward_cost(engine.actor.module)
        self._critic_cost = forward_cost(engine.critic.module.model)
        self._peak_flops = peak_flops(device, engine.dtype)

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
        started = now(self._device)
        prompts = prompts.to(self._device)
        fault_point("ppo.generate")
        if self._generator_is_stale:
            self._generator.refresh()
            self._generator_is_stale = False
        answers = self._generator.generate(prompts, self._sampling)
        rollout = make_rollout(answers, prompts, self._tokenizer)
        fault_point("ppo.score")
        generated = now(self._device)
        self._reward_source.begin(rollout)
        scores = score_rollout(rollout, self._models, self._regularizer)
        verdict = self._verdict(rollout)
        record_verdict(verdict, scores, rollout, means)
        score = verdict.values
        if verdict.unscored is not None:
            rollout = rollout.without(verdict.unscored)
        check_finite(
            {
                "logits while sampling": torch.where(answers.finite, 0.0, torch.nan),
                "log-probabilities of the answers": scores.log_probs,
                "reference's log-probabilities of the answers": scores.reference_log_probs,
                "penalty": scores.penalty,
                "critic's values": torch.where(rollout.response_mask, scores.values, 0.0),
                "reward": torch.where(rollout.usable, score, 0.0),
            },
            step=step,
        )
        fault_point("ppo.scored")
        experience = self._experience(rollout, score, scores, means)
        sampled = rollout.attention_mask[:, -rollout.response_mask.shape[1] :].sum()
        record_speed("generation", sampled, generated - started, means)
        record_speed("scoring", rollout.attention_mask.sum(), now(self._device) - generated, means)
        means.add("penalty_seconds", scores.penalty_cost.seconds, 1.0)
        if scores.penalty_cost.peak_bytes is not None:
            means.add("penalty_peak_mebibytes", scores.penalty_cost.peak_bytes / 2**20, 1.0)
        return experience, scored_answers(rollout, experience)

    def train_rlhf(self, experiences: Sequence[Experience], means: WeightedMeans, *, step: int) -> bool:
        """Update actor and critic on the experience of one PPO step.

        Every token of an optimizer step weighs the same, however the rows are spread over ranks and micro-batches; a
        rank without a usable row runs the same passes with weight zero.

        Args:
            experiences: of all rollout batches of the step.
            means: receives losses and gradient norms.
            step: its number, for messages and for the order of rows.
        Returns:
            whether every optimizer step was made; False where fp16 gradients overflowed in one.
        """
        started = now(self._device)
        self._generator_is_stale = True
        self._engine.actor.train()
        self._engine.critic.train()
        experience = concatenate(experiences, pad_token_id=self._pad)
        self._shaper.observe(experience, means)
        if self._config.shaping.whiten_advantages:
            sums = reduce_sum(masked_sums(experience.advantages, experience.response_mask))
            whitened = whiten(experience.advantages, experience.response_mask, sums)
            experience = replace(experience, advantages=whitened)
        complete, limit, trained = True, self._config.ppo.early_stop_kl, []
        first = (step - 1) * self._config.batches(world_size()).updates
        for window in self._all_windows(experience, step=step):
            text = self._text_rows(first + len(trained), len(window))
            stepped, change = self._update(window, text, means, step=step)
            complete &= stepped
            trained.append(window)
            if limit is not None and change > limit:
                break
        if limit is not None:
            means.add("updates", len(trained), 1.0)
        self._record_training(trained, now(self._device) - started, means)
        return complete

    def _record_training(self, windows: Sequence[Window], seconds: float, means: WeightedMeans) -> None:
        batches = [batch for window in windows for batch in window]
        record_speed("training", sum(batch.attention_mask.sum() for batch in batches), seconds, means)
        if self._peak_flops is None:
            return
        for batch in batches:
            mask = batch.attention_mask
            actor = self._actor_cost.of_rows(mask, scored=batch.response_mask.sum())
            critic = self._critic_cost.of_rows(mask, scored=0.0)
            # the backward pass takes twice what the forward takes
            means.add("training_mfu", 3 * (actor + critic), 0.0)
        means.add("training_mfu", 0.0, seconds * self._peak_flops)

    def state_dict(self) -> dict[str, float]:
        """The trainer's own state, the same on every rank; the engines save theirs."""
        return self._shaper.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave."""
        self._shaper.load_state_dict(state)
        self._generator_is_stale = True

    def _verdict(self, rollout: Rollout) -> SequenceScores:
        """Scores of the answers; what is wrong with one rank's stops all."""
        failure = None
        try:
            verdict = self._reward_source.score(rollout)
        except (UserError, TrainingFault) as error:
            failure = error
        raise_together(failure, self._device)
        return replace(verdict, values=verdict.values.to(self._device, torch.float32))

    def _experience(self, rollout: Rollout, score: Tensor, scores: Scores, means: WeightedMeans) -> Experience:
        """Rewards and advantages from what was said about the answers."""
        ppo, macro = self._config.ppo, self._config.macro_actions
        penalty, normalized = self._shaper.clipped_penalty(scores.penalty), self._shaper.normalized(score)
        segments = self._segmenter.segments(rollout, scores.reference_log_probs)
        advantages, returns = segment_advantages(
            self._shaper.rewards(penalty, normalized, rollout),
            scores.values,
            rollout.response_mask,
            segments.starts,
            value_function=macro.value_function,
            gamma=ppo.gamma,
            lam=ppo.lam,
        )
        experience = Experience(
            sequences=rollout.sequences,
            attention_mask=rollout.attention_mask,
            response_mask=rollout.response_mask,
            log_probs=scores.log_probs,
            score=score,
            penalty=penalty,
            values=scores.values,
            advantages=advantages,
            returns=returns,
        )
        record_rollout(rollout, scores, experience, means, clipped=normalized.abs() > ppo.reward_clip)
        if not macro.every_token:
            record_segments(rollout, segments, means)
        return experience

    def _all_windows(self, experience: Experience, *, step: int) -> Iterator[Window]:
        """The windows of all PPO epochs, each of which has an order of its own."""
        for epoch in range(self._config.ppo.ppo_epochs):
            yield from self._windows(experience, seed=(self._config.runtime.seed, step, epoch))

    def _windows(self, experience: Experience, *, seed: tuple[int, ...]) -> Iterator[Window]:
        """The micro-batches of each optimizer step, rows in seeded random order.

        Within a step, where the order changes nothing, rows of similar length share a micro-batch: equally many rows,
        or as many as --max_tokens_per_micro_batch holds.
        """
        generator = torch.Generator().manual_seed(hash(seed) % 2**63)
        order = torch.randperm(len(experience), generator=generator)
        lengths = experience.attention_mask.sum(dim=-1).cpu()
        micro, max_tokens = self._config.ppo.per_device_training_batch_size, self._config.ppo.max_tokens_per_micro_batch
        for rows in order.split(micro * self._config.schedule.gradient_accumulation_steps):
            if max_tokens is not None:
                mask = experience.attention_mask[rows]
                groups = group_rows(mask, width=experience.response_mask.shape[1], max_tokens=max_tokens)
                yield [experience.rows(rows[group.rows.to(rows.device)]).trimmed() for group in groups]
                continue
            by_length = rows[lengths[rows].argsort(stable=True)]
            yield [experience.rows(part).trimmed() for part in by_length.split(micro)]

    def _update(self, window: Window, text: Sequence[Tensor], means: WeightedMeans, *, step: int) -> tuple[bool, float]:
        """One optimizer step of both models, or of neither.

        Args:
            window: its micro-batches.
            text: a batch [b, L] of plain text for each of them, or nothing.
            means: receives losses and gradient norms.
            step: the PPO step in progress.
        Returns:
            whether it was made, and how far the policy had moved before it, over all ranks: the k3 estimate of
            KL(sampling policy || policy) per token, 0 unless --early_stop_kl asks for it.
        """
        ppo = self._config.ppo
        tokens = torch.stack([batch.response_mask.sum() for batch in window]).sum()
        all_tokens = reduce_sum(tokens.double()).clamp_min(1.0)
        # DeepSpeed averages over ranks and the micro-batches that it expects; undo both to get a mean over tokens
        scale = (world_size() * self._config.schedule.gradient_accumulation_steps / all_tokens).float()
        actor, critic = self._engine.actor, self._engine.critic
        losses: dict[str, list[Tensor]] = {"actor's loss": [], "critic's loss": []}
        change = torch.zeros((), device=self._device)
        for number, batch in enumerate(window, start=1):
            if ppo.max_tokens_per_micro_batch is not None:
                for engine in (actor, critic):
                    engine.set_gradient_accumulation_boundary(number == len(window))
            if text:
                losses.setdefault("loss on plain text", []).append(self._text_pass(text[number - 1], means))
            actor_loss, batch_change = self._actor_loss(batch, means)
            fault_point("train.backward")
            actor.backward(actor_loss * scale * (TEXT_PASSES if text else 1))
            critic_loss = self._critic_loss(batch, means)
            critic.backward(critic_loss * (ppo.value_loss_coef * scale))
            losses["actor's loss"].append(actor_loss.detach())
            losses["critic's loss"].append(critic_loss.detach())
            change += batch_change
            if number < len(window):
                actor.step()  # only counts
                critic.step()
        engines = {"actor": actor, "critic": critic}
        stepped = step_all(engines, {name: torch.stack(each) for name, each in losses.items()}, step=step)
        if stepped:
            self._engine.update_average()
        for name, engine in engines.items():
            norm = engine.get_global_grad_norm()
            if norm is not None:
                means.add(f"{name}_grad_norm", float(norm), 1.0)
        # the same number on every rank, so that all stop together
        return stepped, float(reduce_sum(change.double()) / all_tokens) if ppo.early_stop_kl is not None else 0.0

    def _text_rows(self, update: int, micro_batches: int) -> Sequence[Tensor]:
        """This rank's text [b, L] for each micro-batch of optimizer step number `update`; empty without any."""
        if self._text is None:
            return ()
        size = self._config.ppo.per_device_training_batch_size
        count = micro_batches * size
        rows = self._text.rows((update * world_size() + rank()) * count, count)
        return rows.to(self._device).split(size)

    def _text_pass(self, rows: Tensor, means: WeightedMeans) -> Tensor:
        """Add the gradient of the mean negative log-likelihood of text [b, L] to the actor's, and return it."""
        actor = self._engine.actor
        width = rows.shape[1] - 1
        logits = self._actor_logits(rows, torch.ones_like(rows), width=width)
        log_probs = token_log_probs(logits, rows[:, -width:])
        # every pass over text has equally many tokens: the mean of their means is that of the whole optimizer step
        loss = -log_probs.mean()
        actor.backward(loss * self._config.unsupervised.unsup_coef * TEXT_PASSES)
        actor.step()  # accumulates: the pass over answers is still to come
        means.add("unsupervised_loss", loss.detach() * log_probs.numel(), log_probs.numel())
        return loss.detach()

    def _actor_logits(self, sequences: Tensor, attention_mask: Tensor, *, width: int) -> Tensor:
        """Logits [b, width, V] that predict the last `width` tokens of sequences [b, L], real tokens only."""
        models = self._models
        logits = response_logits(self._engine.actor, models.model_class, sequences, attention_mask, width=width)
        return real_logits(logits, models.vocabulary)

    def _actor_loss(self, batch: Experience, means: WeightedMeans) -> tuple[Tensor, Tensor]:
        """Summed loss, and summed k3 estimate of KL(sampling policy || policy)."""
        ppo, mask = self._config.ppo, batch.response_mask
        width = mask.shape[1]
        logits = self._actor_logits(batch.sequences, batch.attention_mask, width=width)
        log_probs = token_log_probs(logits, batch.sequences[:, -width:])
        loss, clipped = policy_loss(
            log_probs, batch.log_probs, batch.advantages, mask, clip=ppo.policy_clip, dual_clip=ppo.dual_clip
        )
        log_ratio = torch.where(mask, log_probs.detach() - batch.log_probs, 0.0)
        change, weight = (log_ratio.expm1() - log_ratio).sum(), mask.sum()
        means.add("actor_loss", loss.detach(), weight)
        means.add("clipped_share", clipped, weight)
        means.add("policy_change", change, weight)
        if ppo.entropy_coef:
            entropy = torch.where(mask, token_entropies(logits), 0.0).sum()
            means.add("entropy", entropy.detach(), weight)
            loss = loss - ppo.entropy_coef * entropy
        return loss, change

    def _critic_loss(self, batch: Experience, means: WeightedMeans) -> Tensor:
        """Summed loss."""
        mask = batch.response_mask
        values = response_values(self._engine.critic, batch.sequences, batch.attention_mask, width=mask.shape[1])
        loss = value_loss(values, batch.values, batch.returns, mask, clip=self._config.ppo.value_clip)
        means.add("critic_loss", loss.detach(), mask.sum())
        return loss

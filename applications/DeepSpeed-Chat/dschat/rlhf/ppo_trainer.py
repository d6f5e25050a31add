"""PPO: prompts to experience, experience to updates. Regularizer and reward source are known by protocol alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.steps import PPOConfig
from dschat.data.batches import PromptBatch
from dschat.data.plain_text import TextBlocks
from dschat.errors import TrainingFault, UserError
from dschat.generation.base import Generator, Sampling
from dschat.models.reward_model import hugging_face_model
from dschat.rlhf.constituency import ConstituencyParser
from dschat.rlhf.experience import Experience, Rollout, concatenate
from dschat.rlhf.macro_actions import segment_advantages
from dschat.rlhf.ppo_math import masked_sums, whiten
from dschat.rlhf.ppo_updates import PPOUpdates, Window
from dschat.rlhf.regularizers.base import Regularizer
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores
from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
from dschat.rlhf.rollout import make_rollout
from dschat.rlhf.rollout_metrics import (
    ScoredAnswers,
    penalty_cost_sums,
    rollout_sums,
    scored_answers,
    segment_sums,
    speed_sums,
    verdict_sums,
)
from dschat.rlhf.scoring import ModelOutputs, model_outputs
from dschat.rlhf.segmenter import Segmenter
from dschat.rlhf.shaping import RewardShaper
from dschat.runtime.distributed import reduce_sum
from dschat.runtime.faults import fault_point
from dschat.runtime.guards import check_finite, raise_together
from dschat.runtime.metrics import Sums
from dschat.runtime.throughput import forward_cost, now, peak_flops


@dataclass(frozen=True)
class ScoredRollout:
    """One batch of prompts, answered and scored."""

    experience: Experience
    """What PPO trains on."""
    answers: ScoredAnswers
    """The same for people to read."""
    sums: Sums
    """Metrics of the rollout."""


@dataclass(frozen=True)
class Training:
    """What became of the updates of one PPO step."""

    complete: bool
    """Whether every optimizer step was made; False where fp16 gradients overflowed in one."""
    sums: Sums
    """Metrics of the updates."""


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
        self._models = engine.rollout_models()
        self._updates = PPOUpdates(engine, config, device=device, text=text)
        self._segmenter = Segmenter(config.macro_actions, tokenizer, config.runtime.seed, parser)
        self._shaper = RewardShaper(config)
        self._actor_cost = forward_cost(hugging_face_model(engine.actor.module))
        self._critic_cost = forward_cost(hugging_face_model(engine.critic.module))
        self._peak_flops = peak_flops(device, engine.dtype)

    def generate_experience(self, prompts: PromptBatch, *, step: int) -> ScoredRollout:
        """Answer prompts and work out advantages.

        Args:
            prompts: [B, P]; the same B on every rank.
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
        outputs = model_outputs(rollout, self._models, self._regularizer)
        verdict = self._verdict(rollout)
        sums = verdict_sums(verdict, outputs, rollout)
        if verdict.unscored is not None:
            rollout = rollout.without(verdict.unscored)
        check_finite(
            {
                "logits while sampling": torch.where(answers.finite, 0.0, torch.nan),
                "log-probabilities of the answers": outputs.log_probs,
                "reference's log-probabilities of the answers": outputs.reference_log_probs,
                "penalty": outputs.penalty,
                "critic's values": torch.where(rollout.response_mask, outputs.values, 0.0),
                "reward": torch.where(rollout.usable, verdict.values, 0.0),
            },
            step=step,
        )
        fault_point("ppo.scored")
        experience, experience_sums = self._experience(rollout, verdict.values, outputs)
        sampled = rollout.attention_mask[:, -rollout.response_mask.shape[1] :].sum()
        sums += experience_sums
        sums += speed_sums("generation", sampled, generated - started)
        sums += speed_sums("scoring", rollout.attention_mask.sum(), now(self._device) - generated)
        sums += penalty_cost_sums(outputs.penalty_cost)
        return ScoredRollout(experience, scored_answers(rollout, experience), sums)

    def _verdict(self, rollout: Rollout) -> SequenceScores:
        """Scores of the answers; what is wrong with one rank's stops all."""
        failure = None
        try:
            verdict = self._reward_source.score(rollout)
        except (UserError, TrainingFault) as error:
            failure = error
        raise_together(failure, self._device)
        return replace(verdict, values=verdict.values.to(self._device, torch.float32))

    def _experience(self, rollout: Rollout, score: Tensor, outputs: ModelOutputs) -> tuple[Experience, Sums]:
        """Rewards and advantages from scores [B] and what the models say about the answers."""
        ppo, macro = self._config.ppo, self._config.macro_actions
        penalty, normalized = self._shaper.clipped_penalty(outputs.penalty), self._shaper.normalized(score)
        segments = self._segmenter.segments(rollout, outputs.reference_log_probs)
        advantages, returns = segment_advantages(
            self._shaper.rewards(penalty, normalized, rollout),
            outputs.values,
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
            log_probs=outputs.log_probs,
            score=score,
            penalty=penalty,
            values=outputs.values,
            advantages=advantages,
            returns=returns,
        )
        sums = rollout_sums(rollout, outputs, experience, clipped=normalized.abs() > ppo.reward_clip)
        return experience, sums if macro.every_token else sums + segment_sums(rollout, segments)

    def train_rlhf(self, experiences: Sequence[Experience], *, step: int) -> Training:
        """Update actor and critic on the experience of one PPO step.

        Every token of an optimizer step weighs the same, however the rows are spread over ranks and micro-batches; a
        rank without a usable row runs the same passes with weight zero.

        Args:
            experiences: of all rollout batches of the step.
            step: its number, for messages and for the order of rows.
        """
        started = now(self._device)
        self._generator_is_stale = True
        self._engine.actor.train()
        self._engine.critic.train()
        experience = concatenate(experiences, pad_token_id=self._pad)
        sums = self._shaper.observe(experience)
        if self._config.shaping.whiten_advantages:
            mask = experience.response_mask
            totals = reduce_sum(masked_sums(experience.advantages, mask))
            experience = replace(experience, advantages=whiten(experience.advantages, mask, totals))
        updates = self._updates.run(experience, step=step)
        sums += updates.sums + self._training_speed(updates.windows, now(self._device) - started)
        return Training(updates.complete, sums)

    def _training_speed(self, windows: Sequence[Window], seconds: float) -> Sums:
        """Tokens per second of the updates, and their share of the device's peak where that is known."""
        batches = [batch for window in windows for batch in window]
        sums = speed_sums("training", sum(batch.attention_mask.sum() for batch in batches), seconds)
        if self._peak_flops is None:
            return sums
        for batch in batches:
            mask = batch.attention_mask
            actor = self._actor_cost.of_rows(mask, scored=batch.response_mask.sum())
            critic = self._critic_cost.of_rows(mask, scored=0.0)
            # the backward pass takes twice what the forward takes
            sums += Sums.of({"training_mfu": (3 * (actor + critic), 0.0)})
        return sums + Sums.of({"training_mfu": (0.0, seconds * self._peak_flops)})

    def state_dict(self) -> dict[str, float]:
        """The trainer's own state, the same on every rank; the engines save theirs."""
        return self._shaper.state_dict()

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Go on from what `state_dict` gave."""
        self._shaper.load_state_dict(state)
        self._generator_is_stale = True

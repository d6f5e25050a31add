"""PPO's updates: the experience of one step to optimizer steps of actor and critic."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.config.steps import PPOConfig
from dschat.data.plain_text import TextBlocks
from dschat.models.causal_lm import real_logits, response_logits, token_entropies, token_log_probs
from dschat.rlhf.experience import Experience
from dschat.rlhf.ppo_math import policy_loss, value_loss
from dschat.rlhf.rlhf_engine import TEXT_PASSES, DeepSpeedRLHFEngine
from dschat.rlhf.row_groups import group_rows
from dschat.rlhf.scoring import response_values
from dschat.runtime.distributed import rank, reduce_sum, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.metrics import Sums
from dschat.runtime.stepping import step_all

Window = list[Experience]
"""The micro-batches of one optimizer step."""


@dataclass(frozen=True)
class Updates:
    """What became of the optimizer steps of one PPO step."""

    windows: Sequence[Window]
    """The micro-batches of every optimizer step that was begun."""
    complete: bool
    """Whether every optimizer step changed the weights; False where fp16 gradients overflowed in one."""
    sums: Sums
    """Losses, shares and gradient norms."""


@dataclass(frozen=True)
class _Update:
    """What became of one optimizer step."""

    stepped: bool
    """Whether it changed the weights."""
    policy_change: float
    """The k3 estimate of KL(sampling policy || policy) per token before it, over all ranks; 0 unless asked for."""
    sums: Sums


@dataclass(frozen=True)
class _ActorLoss:
    """The actor's loss on one micro-batch, summed over its response tokens."""

    loss: Tensor
    """Scalar, with gradient."""
    policy_change: Tensor
    """Scalar: the k3 estimate of KL(sampling policy || policy)."""
    sums: Sums


class PPOUpdates:
    """Trains actor and critic on experience; all ranks call every method together."""

    def __init__(
        self, engine: DeepSpeedRLHFEngine, config: PPOConfig, *, device: torch.device, text: TextBlocks | None = None
    ) -> None:
        """
        Args:
            engine: the models.
            config: settings of step 3.
            device: where this rank computes.
            text: what the actor also learns to predict, where the settings mix text in.
        """
        self._engine = engine
        self._config = config
        self._device = device
        self._text = text
        self._models = engine.rollout_models()

    def run(self, experience: Experience, *, step: int) -> Updates:
        """All optimizer steps of one PPO step, fewer where the policy moves farther than --early_stop_kl.

        Args:
            experience: of this rank, advantages ready to be used.
            step: the PPO step, which decides the order of rows.
        """
        complete, limit, sums = True, self._config.ppo.early_stop_kl, Sums()
        windows: list[Window] = []
        first = (step - 1) * self._config.batches(world_size()).updates
        for window in self._all_windows(experience, step=step):
            text = self._text_rows(first + len(windows), len(window))
            update = self._update(window, text, step=step)
            complete &= update.stepped
            sums += update.sums
            windows.append(window)
            if limit is not None and update.policy_change > limit:
                break
        if limit is not None:
            sums += Sums.of({"updates": (len(windows), 1.0)})
        return Updates(windows, complete, sums)

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

    def _text_rows(self, update: int, micro_batches: int) -> Sequence[Tensor]:
        """This rank's text [b, L] for each micro-batch of optimizer step number `update`; empty without any."""
        if self._text is None:
            return ()
        size = self._config.ppo.per_device_training_batch_size
        count = micro_batches * size
        rows = self._text.rows((update * world_size() + rank()) * count, count)
        return rows.to(self._device).split(size)

    def _update(self, window: Window, text: Sequence[Tensor], *, step: int) -> _Update:
        """One optimizer step of both models, or of neither.

        Args:
            window: its micro-batches.
            text: a batch [b, L] of plain text for each of them, or nothing.
            step: the PPO step in progress.
        """
        ppo = self._config.ppo
        tokens = torch.stack([batch.response_mask.sum() for batch in window]).sum()
        all_tokens = reduce_sum(tokens.double()).clamp_min(1.0)
        # DeepSpeed averages over ranks and the micro-batches that it expects; undo both to get a mean over tokens
        scale = (world_size() * self._config.schedule.gradient_accumulation_steps / all_tokens).float()
        actor, critic = self._engine.actor, self._engine.critic
        losses: dict[str, list[Tensor]] = {"actor's loss": [], "critic's loss": []}
        change = torch.zeros((), device=self._device)
        sums = Sums()
        for number, batch in enumerate(window, start=1):
            if ppo.max_tokens_per_micro_batch is not None:
                for engine in (actor, critic):
                    engine.set_gradient_accumulation_boundary(number == len(window))
            if text:
                text_loss, text_sums = self._text_pass(text[number - 1])
                losses.setdefault("loss on plain text", []).append(text_loss)
                sums += text_sums
            actor_loss = self._actor_loss(batch)
            fault_point("train.backward")
            actor.backward(actor_loss.loss * scale * (TEXT_PASSES if text else 1))
            critic_loss, critic_sums = self._critic_loss(batch)
            critic.backward(critic_loss * (ppo.value_loss_coef * scale))
            losses["actor's loss"].append(actor_loss.loss.detach())
            losses["critic's loss"].append(critic_loss.detach())
            change += actor_loss.policy_change
            sums += actor_loss.sums + critic_sums
            if number < len(window):
                actor.step()  # only counts
                critic.step()
        engines = {"actor": actor, "critic": critic}
        stepped = step_all(engines, {name: torch.stack(each) for name, each in losses.items()}, step=step)
        if stepped:
            self._engine.update_average()
        norms = {f"{name}_grad_norm": engine.get_global_grad_norm() for name, engine in engines.items()}
        sums += Sums.of({name: (float(norm), 1.0) for name, norm in norms.items() if norm is not None})
        # the same number on every rank, so that all stop together
        moved = float(reduce_sum(change.double()) / all_tokens) if ppo.early_stop_kl is not None else 0.0
        return _Update(stepped, moved, sums)

    def _text_pass(self, rows: Tensor) -> tuple[Tensor, Sums]:
        """Add the gradient of the mean negative log-likelihood of text [b, L] to the actor's; that mean, a scalar."""
        actor = self._engine.actor
        width = rows.shape[1] - 1
        logits = self._actor_logits(rows, torch.ones_like(rows), width=width)
        log_probs = token_log_probs(logits, rows[:, -width:])
        # every pass over text has equally many tokens: the mean of their means is that of the whole optimizer step
        loss = -log_probs.mean()
        actor.backward(loss * self._config.unsupervised.unsup_coef * TEXT_PASSES)
        actor.step()  # accumulates: the pass over answers is still to come
        sums = Sums.of({"unsupervised_loss": (loss.detach() * log_probs.numel(), log_probs.numel())})
        return loss.detach(), sums

    def _actor_loss(self, batch: Experience) -> _ActorLoss:
        """The clipped policy loss, less --entropy_coef times the entropy."""
        ppo, mask = self._config.ppo, batch.response_mask
        width = mask.shape[1]
        logits = self._actor_logits(batch.sequences, batch.attention_mask, width=width)
        log_probs = token_log_probs(logits, batch.sequences[:, -width:])
        loss, clipped = policy_loss(
            log_probs, batch.log_probs, batch.advantages, mask, clip=ppo.policy_clip, dual_clip=ppo.dual_clip
        )
        log_ratio = torch.where(mask, log_probs.detach() - batch.log_probs, 0.0)
        change, weight = (log_ratio.expm1() - log_ratio).sum(), mask.sum()
        sums = Sums.of(
            {
                "actor_loss": (loss.detach(), weight),
                "clipped_share": (clipped, weight),
                "policy_change": (change, weight),
            }
        )
        if ppo.entropy_coef:
            entropy = torch.where(mask, token_entropies(logits), 0.0).sum()
            sums += Sums.of({"entropy": (entropy.detach(), weight)})
            loss = loss - ppo.entropy_coef * entropy
        return _ActorLoss(loss, change, sums)

    def _actor_logits(self, sequences: Tensor, attention_mask: Tensor, *, width: int) -> Tensor:
        """Logits [b, width, V] that predict the last `width` tokens of sequences [b, L], real tokens only."""
        models = self._models
        logits = response_logits(self._engine.actor, models.model_class, sequences, attention_mask, width=width)
        return real_logits(logits, models.vocabulary)

    def _critic_loss(self, batch: Experience) -> tuple[Tensor, Sums]:
        """The clipped value loss, a scalar: summed over the response tokens."""
        mask = batch.response_mask
        values = response_values(self._engine.critic, batch.sequences, batch.attention_mask, width=mask.shape[1])
        loss = value_loss(values, batch.values, batch.returns, mask, clip=self._config.ppo.value_clip)
        return loss, Sums.of({"critic_loss": (loss.detach(), mask.sum())})

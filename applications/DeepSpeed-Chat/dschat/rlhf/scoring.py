"""Scoring a rollout: log-probabilities, penalties and values, without ever holding [B, R, V] of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.models.causal_lm import real_logits, response_logits, token_log_probs
from dschat.models.lora import FrozenModel
from dschat.models.tokenizer import Vocabulary
from dschat.rlhf.experience import Rollout
from dschat.rlhf.regularizers import Penalty, Regularizer, ResponsePositions
from dschat.rlhf.row_groups import group_rows
from dschat.runtime.throughput import now
from dschat.runtime.training_engine import TrainingEngine

MAX_LOGITS = 2**27
"""Logits of one model held at once (256 MiB in 16 bits); at least one row is scored at a time."""


@dataclass(frozen=True)
class ModelOutputs:
    """What the frozen policy, the reference and the critic say about the answers of B rows."""

    log_probs: Tensor
    """[B, R] float32, of the policy that sampled them; 0 off the response mask."""
    reference_log_probs: Tensor
    """[B, R] float32; 0 off the response mask."""
    penalty: Tensor
    """[B, R] float32; 0 off the response mask."""
    values: Tensor
    """[B, R] float32, the critic before each token; 0 where the whole group of rows has padding."""
    penalty_metrics: Mapping[str, Tensor]
    """Sums over this rank's response tokens of the regularizer's diagnostics, scalars."""
    penalty_cost: PenaltyCost
    """What the regularizer took."""


@dataclass(frozen=True)
class PenaltyCost:
    """Time and memory spent in the regularizer."""

    seconds: float = 0.0
    peak_bytes: int | None = None
    """Device memory held at the worst moment beyond what was held before; None on a CPU, which keeps no account."""

    def __add__(self, other: PenaltyCost) -> PenaltyCost:
        """One after the other."""
        peaks = [cost.peak_bytes for cost in (self, other) if cost.peak_bytes is not None]
        return PenaltyCost(self.seconds + other.seconds, max(peaks, default=None))


@dataclass(frozen=True)
class RolloutModels:
    """The models that a rollout is run through, all in eval mode."""

    actor: TrainingEngine
    reference: FrozenModel
    critic: TrainingEngine
    model_class: type
    """Class of actor and reference."""
    vocabulary: Vocabulary
    """The ids that have a token; no other logits count."""


@torch.no_grad()
def model_outputs(rollout: Rollout, models: RolloutModels, regularizer: Regularizer) -> ModelOutputs:
    """Run the three models over a rollout, rows of similar length together.

    Logits are taken on response positions alone; log-probabilities and penalties are read from them and they are freed
    before the next rows are scored.

    Args:
        rollout: B rows.
        models: in eval mode, so that no dropout enters the stored log-probabilities and values.
        regularizer: computes the penalty from both models' logits.
    """
    mask = rollout.response_mask
    log_probs, reference_log_probs, penalty, values = (torch.zeros(mask.shape, device=mask.device) for _ in range(4))
    sums: dict[str, Tensor] = {}
    cost = PenaltyCost()
    for group in group_rows(
        rollout.attention_mask,
        width=mask.shape[1],
        max_positions=MAX_LOGITS // models.vocabulary.size,
    ):
        rows, columns = group.rows, slice(0, group.width)
        part = _Rows(
            sequences=rollout.sequences[rows, group.columns],
            attention_mask=rollout.attention_mask[rows, group.columns],
            mask=mask[rows, columns],
        )
        outputs, spent = _run_rows(part, models, regularizer)
        cost += spent
        log_probs[rows, columns], reference_log_probs[rows, columns] = outputs.policy, outputs.reference
        penalty[rows, columns] = outputs.penalty.values
        values[rows, columns] = response_values(models.critic, part.sequences, part.attention_mask, width=group.width)
        for name, each in outputs.penalty.metrics.items():
            sums[name] = sums.get(name, torch.zeros((), device=mask.device)) + each.sum()
    return ModelOutputs(log_probs, reference_log_probs, penalty, values, penalty_metrics=sums, penalty_cost=cost)


def response_values(critic: Callable[..., Tensor], sequences: Tensor, attention_mask: Tensor, *, width: int) -> Tensor:
    """The critic's values before each of the last `width` tokens.

    Args:
        critic: scores tokens; may be a DeepSpeed engine.
        sequences: [B, P + R] int64.
        attention_mask: [B, P + R].
        width: R.
    Returns:
        [B, R] float32.
    """
    scores = critic(input_ids=sequences, attention_mask=attention_mask)
    return scores[:, -width - 1 : -1]


@dataclass(frozen=True)
class _Rows:
    """Some rows of a rollout without the columns that none of them needs."""

    sequences: Tensor
    """[b, p + r]."""
    attention_mask: Tensor
    """[b, p + r]."""
    mask: Tensor
    """[b, r], of the response tokens."""


@dataclass(frozen=True)
class _RowOutputs:
    """Log-probabilities [b, r] of policy and reference, and the penalty: values [b, r], metrics [n]."""

    policy: Tensor
    reference: Tensor
    penalty: Penalty


def _run_rows(part: _Rows, models: RolloutModels, regularizer: Regularizer) -> tuple[_RowOutputs, PenaltyCost]:
    """What the models and the regularizer say about some rows, and what the regularizer took."""
    mask = part.mask
    width = mask.shape[1]
    selected = []
    for model in (models.actor, models.reference):
        logits = response_logits(model, models.model_class, part.sequences, part.attention_mask, width=width)
        selected.append(real_logits(logits, models.vocabulary)[mask])
    policy_logits, reference_logits = selected
    tokens = part.sequences[:, -width:][mask]
    if tokens.numel() == 0:
        nothing = torch.zeros(mask.shape, device=mask.device)
        return _RowOutputs(nothing, nothing, Penalty(nothing)), PenaltyCost()
    positions = ResponsePositions(
        policy_logits=policy_logits,
        reference_logits=reference_logits,
        tokens=tokens,
        policy_log_probs=token_log_probs(policy_logits, tokens),
        reference_log_probs=token_log_probs(reference_logits, tokens),
    )
    penalty, cost = _measured_penalty(regularizer, positions)

    def spread(values: Tensor) -> Tensor:
        return torch.zeros(mask.shape, device=mask.device).masked_scatter(mask, values)

    outputs = _RowOutputs(
        spread(positions.policy_log_probs),
        spread(positions.reference_log_probs),
        Penalty(spread(penalty.values), penalty.metrics),
    )
    return outputs, cost


def _measured_penalty(regularizer: Regularizer, positions: ResponsePositions) -> tuple[Penalty, PenaltyCost]:
    """The penalty and what it took; NaN instead where the models' logits are broken already."""
    log_probs = torch.stack([positions.policy_log_probs, positions.reference_log_probs])
    if not bool(log_probs.isfinite().all()):
        # the caller stops the run on all ranks together; a regularizer would stop this one alone
        return Penalty(torch.full_like(positions.policy_log_probs, torch.nan)), PenaltyCost()
    device = log_probs.device
    held = _held_bytes(device)
    started = now(device)
    penalty = regularizer.penalty(positions)
    seconds = now(device) - started
    return penalty, PenaltyCost(seconds, None if held is None else torch.cuda.max_memory_allocated(device) - held)


def _held_bytes(device: torch.device) -> int | None:
    """Device memory in use, from where the account of the peak begins anew; None on a CPU."""
    if device.type != "cuda":
        return None
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)

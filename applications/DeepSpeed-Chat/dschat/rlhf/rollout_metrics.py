"""What a rollout leaves in the log, and its texts for people to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.reward_sources.base import SequenceScores
from dschat.rlhf.scoring import ModelOutputs, PenaltyCost
from dschat.rlhf.segmenter import Segments
from dschat.runtime.distributed import world_size
from dschat.runtime.metrics import Sums


@dataclass(frozen=True)
class ScoredAnswers:
    """Texts of one rollout with their numbers, for people to read."""

    prompts: tuple[str, ...]
    answers: tuple[str, ...]
    scores: list[float]
    penalties: list[float]
    """Mean penalty per token."""


def scored_answers(rollout: Rollout, experience: Experience) -> ScoredAnswers:
    """The texts of a rollout of B rows, with score and mean penalty."""
    mask = rollout.response_mask
    penalty = torch.where(mask, experience.penalty, 0.0).sum(dim=-1) / mask.sum(dim=-1).clamp_min(1)
    return ScoredAnswers(
        prompts=rollout.prompts,
        answers=rollout.answers,
        scores=experience.score.tolist(),
        penalties=penalty.tolist(),
    )


def rollout_sums(rollout: Rollout, outputs: ModelOutputs, experience: Experience, *, clipped: Tensor) -> Sums:
    """A rollout's metrics, over its usable rows and their tokens.

    Args:
        rollout: B rows.
        outputs: of the models on its answers.
        experience: made from both.
        clipped: [B] bool, answers whose score lay beyond the clip.
    """
    mask, usable = rollout.response_mask, rollout.usable
    tokens, rows = mask.sum(), usable.sum()
    per_row = {
        "reward": experience.score,
        "reward_square": experience.score.square(),
        "clipped_reward_share": clipped.float(),
        "response_length": mask.sum(dim=-1),
        "ended_share": rollout.ended.float(),
        "penalty_per_answer": experience.penalty.sum(dim=-1),
    }
    per_token = {
        "penalty": experience.penalty,
        "log_ratio": outputs.log_probs - outputs.reference_log_probs,
        "value": outputs.values,
        "return": experience.returns,
        "advantage": experience.advantages,
    }
    return Sums.of(
        {name: (torch.where(usable, values.float(), 0.0).sum(), rows) for name, values in per_row.items()}
        | {name: (torch.where(mask, values, 0.0).sum(), tokens) for name, values in per_token.items()}
        | {"usable_share": (rows, usable.numel())}
    )


def verdict_sums(verdict: SequenceScores, outputs: ModelOutputs, rollout: Rollout) -> Sums:
    """Metrics of the reward source and the regularizer, over all rows that were scored.

    Args:
        verdict: of the reward source on B rows.
        outputs: of the models.
        rollout: with the rows that are dropped because they got no score.
    """
    known = {name: ~values.isnan() for name, values in verdict.metrics.items()}
    tokens = rollout.response_mask.sum()
    return Sums.of(
        {name: (torch.where(known[name], each, 0.0).sum(), known[name].sum()) for name, each in verdict.metrics.items()}
    ) + Sums.of({name: (total, tokens) for name, total in outputs.penalty_metrics.items()})


def segment_sums(rollout: Rollout, segments: Segments) -> Sums:
    """Metrics of a rollout's macro actions."""
    count, rows = segments.starts.sum(), rollout.usable.sum()
    return Sums.of(
        {
            "segments": (count, rows),
            "segment_length": (rollout.response_mask.sum(), count),
            "unparsed_share": (segments.unparsed.sum(), rows),
        }
    )


def speed_sums(part: str, tokens: Tensor | int, seconds: float) -> Sums:
    """What this rank's share of a part of a step took, and its tokens per second on all ranks together."""
    return Sums.of({f"{part}_seconds": (seconds, 1.0), f"{part}_tokens_per_second": (tokens, seconds / world_size())})


def penalty_cost_sums(cost: PenaltyCost) -> Sums:
    """What the regularizer took."""
    sums = Sums.of({"penalty_seconds": (cost.seconds, 1.0)})
    if cost.peak_bytes is None:
        return sums
    return sums + Sums.of({"penalty_peak_mebibytes": (cost.peak_bytes / 2**20, 1.0)})

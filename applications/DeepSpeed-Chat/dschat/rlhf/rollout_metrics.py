"""What a rollout leaves in the log, and its texts for people to read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.reward_sources.base import SequenceScores
from dschat.rlhf.scoring import Scores
from dschat.rlhf.segmenter import Segments
from dschat.runtime.distributed import world_size
from dschat.runtime.metrics import WeightedMeans


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


def record_rollout(
    rollout: Rollout, scores: Scores, experience: Experience, means: WeightedMeans, *, clipped: Tensor
) -> None:
    """Add a rollout's metrics.

    Args:
        rollout: B rows.
        scores: of its answers.
        experience: made from both.
        means: receives the metrics.
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
    for name, values in per_row.items():
        means.add(name, torch.where(usable, values.float(), 0.0).sum(), rows)
    per_token = {
        "penalty": experience.penalty,
        "log_ratio": scores.log_probs - scores.reference_log_probs,
        "value": scores.values,
        "return": experience.returns,
        "advantage": experience.advantages,
    }
    for name, values in per_token.items():
        means.add(name, torch.where(mask, values, 0.0).sum(), tokens)
    means.add("usable_share", rows, usable.numel())


def record_verdict(verdict: SequenceScores, scores: Scores, rollout: Rollout, means: WeightedMeans) -> None:
    """Add the metrics of the reward source and the regularizer, over all rows that were scored.

    Args:
        verdict: of the reward source on B rows.
        scores: of the models.
        rollout: with the rows that are dropped because they got no score.
        means: receives the metrics.
    """
    for name, values in verdict.metrics.items():
        known = ~values.isnan()
        means.add(name, torch.where(known, values, 0.0).sum(), known.sum())
    tokens = rollout.response_mask.sum()
    for name, total in scores.penalty_metrics.items():
        means.add(name, total, tokens)


def record_segments(rollout: Rollout, segments: Segments, means: WeightedMeans) -> None:
    """Add the metrics of a rollout's macro actions."""
    count, rows = segments.starts.sum(), rollout.usable.sum()
    means.add("segments", count, rows)
    means.add("segment_length", rollout.response_mask.sum(), count)
    means.add("unparsed_share", segments.unparsed.sum(), rows)


def record_speed(part: str, tokens: Tensor, seconds: float, means: WeightedMeans) -> None:
    """Add what this rank's share of a part of a step took, and its tokens per second on all ranks together."""
    means.add(f"{part}_seconds", seconds, 1.0)
    means.add(f"{part}_tokens_per_second", tokens, seconds / world_size())

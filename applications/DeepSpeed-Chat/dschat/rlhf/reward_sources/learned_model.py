"""Scores from a trained reward model."""

from __future__ import annotations

import torch
from torch import nn

from dschat.models.reward_model import end_scores
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores


class LearnedModelReward(RewardSource):
    """The reward model's score at the last token of the answer, its end token included."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @torch.no_grad()
    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B] float32."""
        scores = self._model(input_ids=rollout.sequences, attention_mask=rollout.attention_mask)
        return SequenceScores(end_scores(scores, rollout.attention_mask))

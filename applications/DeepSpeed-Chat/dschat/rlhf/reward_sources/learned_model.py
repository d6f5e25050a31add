"""Scores from a trained reward model."""

from __future__ import annotations

import torch

from dschat.models.lora import FrozenModel
from dschat.models.reward_model import end_scores
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores
from dschat.rlhf.row_groups import group_rows


class LearnedModelReward(RewardSource):
    """The reward model's score at the last token of the answer, its end token included."""

    def __init__(self, model: FrozenModel) -> None:
        self._model = model

    @torch.no_grad()
    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B] float32."""
        mask, width = rollout.attention_mask, rollout.response_mask.shape[1]
        found = torch.zeros(mask.shape[0], device=mask.device)
        for group in group_rows(mask, width=width):
            ids, real = (table[group.rows, group.columns] for table in (rollout.sequences, mask))
            found[group.rows] = end_scores(self._model(input_ids=ids, attention_mask=real), real)
        return SequenceScores(found)

"""Scores of answers from the reward model, in the form in which it was trained: prompt, answer, one end token.

A score is a function of the two texts alone, so a file's rewards can be had again from its prompts and responses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from dschat.data.stages import PPO
from dschat.data.tokenise import Sample, TextEncoder
from dschat.models.reward_model import TokenScorer, end_scores

DECIMALS = 6
"""Digits of a stored reward; what comes after them is rounding noise of the batch."""


@dataclass(frozen=True)
class RewardScorer:
    """The reward model with its own tokenizer."""

    scorer: TokenScorer
    encoder: TextEncoder
    """Its max_length is the longest row that the model takes."""

    def token_ids(self, prompt: str, response: str, *, cue: str) -> list[int] | None:
        """The row that the reward model reads; a long prompt is cut at the front.

        Args:
            prompt: not empty.
            response: may be empty.
            cue: end of the prompt that must not be cut.
        Returns:
            Token ids, or None where the answer and the cue do not fit.
        """
        encoder = self.encoder
        answer = encoder.tokenizer(response, add_special_tokens=False, verbose=False)["input_ids"]
        while answer and answer[-1] == encoder.end_id:
            answer = answer[:-1]
        answer = [*answer, encoder.end_id]
        room = replace(encoder, max_length=encoder.max_length - len(answer))
        fitted = next(room.encode([Sample(prompt, cue=cue)], PPO, Counter()), None)
        return None if fitted is None else [*fitted["input_ids"], *answer]

    @torch.no_grad()
    def score(self, rows: Sequence[list[int] | None]) -> list[float | None]:
        """Score at each row's last token, rounded to 6 decimals; None for a row that is None."""
        kept = [row for row in rows if row is not None]
        scores = iter(self._batch(kept) if kept else [])
        return [None if row is None else round(next(scores), DECIMALS) for row in rows]

    def _batch(self, rows: Sequence[list[int]]) -> list[float]:
        width = max(len(row) for row in rows)
        pad = int(self.encoder.tokenizer.pad_token_id)
        device = next(self.scorer.parameters()).device
        input_ids = torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows], device=device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
        return end_scores(self.scorer(input_ids, mask), mask).tolist()

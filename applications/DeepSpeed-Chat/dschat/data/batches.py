"""Batches that leave the data package, as frozen records of tensors.

B rows, L width of a batch, P width of a batch of prompts. A token of 1 in an attention mask is real, 0 is padding;
lengths always come from the mask, never from comparing ids with the pad token, so pad = eos is harmless.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class SFTBatch:
    """Prompts with their answers, right-padded, for supervised fine-tuning."""

    input_ids: Tensor
    """[B, L] int64."""
    attention_mask: Tensor
    """[B, L] int64."""
    labels: Tensor
    """[B, L] int64: the token itself where the loss counts, -100 on the prompt (unless the loss covers prompts) and
    always on padding. Not shifted: `labels[:, t]` belongs to `input_ids[:, t]`."""

    def to(self, device: torch.device | str) -> SFTBatch:
        """The same batch on another device."""
        return SFTBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            labels=self.labels.to(device),
        )


@dataclass(frozen=True)
class PairBatch:
    """Pairs of answers to one prompt, right-padded, for the reward model: rows 0..B-1 chosen, B..2B-1 rejected."""

    input_ids: Tensor
    """[2B, L] int64."""
    attention_mask: Tensor
    """[2B, L] int64."""

    def to(self, device: torch.device | str) -> PairBatch:
        """The same batch on another device."""
        return PairBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
        )


@dataclass(frozen=True)
class PromptBatch:
    """Prompts to answer, left-padded, each with the dataset's record of its row."""

    input_ids: Tensor
    """[B, P] int64."""
    attention_mask: Tensor
    """[B, P] int64."""
    records: tuple[dict[str, Any], ...]
    """B records; each has at least "prompt" and "chosen" (text, or None where the dataset has no answer)."""

    @classmethod
    def of_ids(cls, rows: Sequence[Sequence[int]], *, pad_token_id: int) -> PromptBatch:
        """Prompts that belong to no dataset, with empty records.

        Args:
            rows: B lists of token ids.
            pad_token_id: fills padding; may equal any other id.
        """
        width = max(map(len, rows))
        ids = [[pad_token_id] * (width - len(row)) + list(row) for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return cls(torch.tensor(ids), torch.tensor(mask), tuple({} for _ in rows))

    def to(self, device: torch.device | str) -> PromptBatch:
        """The same batch on another device; records stay where they are."""
        return PromptBatch(
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            records=self.records,
        )

"""Batches from tokenised rows: padded, masked, labelled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dschat.code_execution.long_integers import load_json
from dschat.data.batches import PairBatch, PromptBatch, SFTBatch

IGNORED_LABEL = -100
"""The label that PyTorch's cross entropy leaves out."""


def collate_sft(items: Sequence[Mapping[str, Any]], *, pad_token_id: int, loss_on_prompt: bool = False) -> SFTBatch:
    """Right-pad sft rows to the longest.

    Args:
        items: B rows of `StageData`; none gives tensors of shape [0, 0].
        pad_token_id: fills padding; may equal any other id.
        loss_on_prompt: whether prompts are labelled too.
    Returns:
        input_ids, attention_mask, labels: each [B, L] int64.
    """
    input_ids, attention_mask = _padded([item["input_ids"] for item in items], pad_token_id)
    starts = torch.tensor([0 if loss_on_prompt else item["prompt_length"] for item in items], dtype=torch.int64)
    positions = torch.arange(input_ids.shape[1])
    counted = attention_mask.bool() & (positions >= starts[:, None])
    return SFTBatch(input_ids, attention_mask, torch.where(counted, input_ids, IGNORED_LABEL))


def collate_pairs(items: Sequence[Mapping[str, Any]], *, pad_token_id: int) -> PairBatch:
    """Right-pad reward rows to the longest of all: first every chosen, then every rejected.

    Args:
        items: B rows of `StageData`; none gives tensors of shape [0, 0].
        pad_token_id: fills padding; may equal any other id.
    Returns:
        input_ids, attention_mask: [2B, L] int64.
    """
    rows = [item["chosen_ids"] for item in items] + [item["rejected_ids"] for item in items]
    return PairBatch(*_padded(rows, pad_token_id))


def collate_prompts(items: Sequence[Mapping[str, Any]], *, pad_token_id: int, pad_to: int | None = None) -> PromptBatch:
    """Left-pad ppo rows.

    Args:
        items: B rows of `StageData`.
        pad_token_id: fills padding; may equal any other id.
        pad_to: width P of the batch, at least the longest prompt; None for the longest prompt.
    Returns:
        input_ids, attention_mask: [B, P] int64, and the B records.
    """
    rows = [item["input_ids"][::-1] for item in items]
    input_ids, attention_mask = _padded(rows, pad_token_id, width=pad_to)
    records = tuple(load_json(item["record"]) for item in items)
    return PromptBatch(input_ids.flip(-1), attention_mask.flip(-1), records)


def _padded(rows: Sequence[Sequence[int]], pad_token_id: int, *, width: int | None = None) -> tuple[Tensor, Tensor]:
    """Right-padded rows and their mask, each [B, L] int64, L the longest row or `width`."""
    lengths = [len(row) for row in rows]
    longest = max(lengths, default=0)
    if width is not None and width < longest:
        raise ValueError(f"a row of {longest} tokens does not fit a width of {width}")
    input_ids = torch.full((len(rows), longest if width is None else width), pad_token_id, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    for index, row in enumerate(rows):
        input_ids[index, : len(row)] = torch.tensor(row, dtype=torch.int64)
        attention_mask[index, : len(row)] = 1
    return input_ids, attention_mask

"""From prompts and sampled answers to a rollout."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.data.batches import PromptBatch
from dschat.generation.base import Answers
from dschat.models.tokenizer import text_of
from dschat.rlhf.experience import Rollout


def make_rollout(answers: Answers, prompts: PromptBatch, tokenizer: PreTrainedTokenizerBase) -> Rollout:
    """Put prompts and answers together; rows that answer nothing are marked unusable.

    Args:
        answers: [B, R], on the prompts' device.
        prompts: the batch that was continued, [B, P].
        tokenizer: turns ids into the texts that reward sources read.
    """
    mask = answers.mask
    says_something = answers.lengths > answers.ended.long()
    return Rollout(
        sequences=torch.cat([prompts.input_ids, answers.tokens], dim=-1),
        attention_mask=torch.cat([prompts.attention_mask, mask.long()], dim=-1),
        response_mask=mask & says_something[:, None],
        ended=answers.ended,
        records=prompts.records,
        prompts=_texts(prompts.input_ids, prompts.attention_mask.bool(), tokenizer),
        answers=_texts(answers.tokens, mask, tokenizer),
    )


def _texts(ids: Tensor, mask: Tensor, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    rows = (row[keep].tolist() for row, keep in zip(ids, mask, strict=True))
    return tuple(text_of(tokenizer, row) for row in rows)

"""What one batch of prompts becomes: rollout, then experience. Frozen, so that no stage edits another's tensors.

B rows, P prompt width (left-padded), R response width (right-padded).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Rollout:
    """Prompts with sampled answers.

    A row whose answer is unusable stays in place with an empty `response_mask`: it weighs nothing in any loss or mean,
    its prompt, record and tensors can never shift against those of other rows, and every rank keeps running equally
    many forwards whatever its neighbours drop.
    """

    sequences: Tensor
    """[B, P + R] int64, prompt then answer."""
    attention_mask: Tensor
    """[B, P + R] int64, 1 on the prompt's tokens and on the answer's up to and including its end token."""
    response_mask: Tensor
    """[B, R] bool, True on the answer's tokens up to and including its end token; all False in an unusable row."""
    ended: Tensor
    """[B] bool, whether the answer ended by itself."""
    records: tuple[dict[str, Any], ...]
    """The dataset's record of each row."""
    prompts: tuple[str, ...]
    """Text of each prompt."""
    answers: tuple[str, ...]
    """Text of each answer, without special tokens."""

    @property
    def responses(self) -> Tensor:
        """[B, R] int64 answer tokens."""
        return self.sequences[:, -self.response_mask.shape[1] :]

    @property
    def usable(self) -> Tensor:
        """[B] bool, the rows that take part."""
        return self.response_mask.any(dim=-1)

    def without(self, rows: Tensor) -> Rollout:
        """The same rollout with more rows unusable, rows [B] bool."""
        return replace(self, response_mask=self.response_mask & ~rows[:, None])


@dataclass(frozen=True)
class Experience:
    """What PPO trains on: nothing here has a vocabulary dimension."""

    sequences: Tensor
    """[B, P + R] int64."""
    attention_mask: Tensor
    """[B, P + R] int64."""
    response_mask: Tensor
    """[B, R] bool; rows that are all False weigh nothing."""
    log_probs: Tensor
    """[B, R] float32, of the policy that sampled the answers."""
    score: Tensor
    """[B] float32, the sequence score as its source gave it."""
    penalty: Tensor
    """[B, R] float32, as it was charged, before its coefficient."""
    values: Tensor
    """[B, R] float32, the critic's estimate before each token."""
    advantages: Tensor
    """[B, R] float32."""
    returns: Tensor
    """[B, R] float32."""

    def __len__(self) -> int:
        return self.sequences.shape[0]

    def rows(self, index: Tensor) -> Experience:
        """The experience of the rows with the given numbers, index [M] int64."""
        return replace(self, **{f.name: getattr(self, f.name)[index] for f in fields(self)})

    def trimmed(self) -> Experience:
        """The same without the columns in which every row has padding; changes no loss."""
        columns, width = real_columns(self.attention_mask, width=self.response_mask.shape[1])
        whole = ("sequences", "attention_mask")
        answers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in whole}
        return Experience(
            sequences=self.sequences[:, columns],
            attention_mask=self.attention_mask[:, columns],
            **{name: values[:, :width] if values.dim() == 2 else values for name, values in answers.items()},
        )


def real_columns(attention_mask: Tensor, *, width: int) -> tuple[slice, int]:
    """The columns of attention_mask [b, P + R] that hold a real token of any row, and how many belong to the response.

    Args:
        attention_mask: 1 on real tokens.
        width: R; at least one of these columns is kept.
    """
    used = attention_mask.bool().any(dim=0).nonzero().flatten().tolist()
    prompt = attention_mask.shape[1] - width
    begin, end = (used[0], used[-1] + 1) if used else (prompt, prompt)
    begin, end = min(begin, prompt - 1), max(end, prompt + 1)
    return slice(begin, end), end - prompt


def concatenate(experiences: Sequence[Experience], *, pad_token_id: int) -> Experience:
    """All rows of several experiences, padded to the widest prompt (left) and answer (right).

    Args:
        experiences: each with its own P and R.
        pad_token_id: fills the sequences; masks are 0 there.
    Returns:
        an experience of shape [sum of B, max P + max R]; padding changes no loss.
    """
    response = max(e.response_mask.shape[1] for e in experiences)
    prompt = max(e.sequences.shape[1] - e.response_mask.shape[1] for e in experiences)
    padded = []
    for e in experiences:
        right = response - e.response_mask.shape[1]
        left = prompt - (e.sequences.shape[1] - e.response_mask.shape[1])
        both = {
            "sequences": F.pad(e.sequences, (left, right), value=pad_token_id),
            "attention_mask": F.pad(e.attention_mask, (left, right)),
        }
        rest = {f.name: getattr(e, f.name) for f in fields(e) if f.name not in both}
        narrow = {name: F.pad(values, (0, right)) if values.dim() == 2 else values for name, values in rest.items()}
        padded.append(Experience(**both, **narrow))
    return Experience(**{f.name: torch.cat([getattr(e, f.name) for e in padded]) for f in fields(Experience)})

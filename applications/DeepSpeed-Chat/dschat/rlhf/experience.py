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
        narrow = {f.name: F.pad(getattr(e, f.name), (0, right)) for f in fields(e) if f.name not in both}
        padded.append(Experience(**both, **narrow))
    return Experience(**{f.name: torch.cat([getattr(e, f.name) for e in padded]) for f in fields(Experience)})

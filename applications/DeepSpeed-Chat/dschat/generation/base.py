"""What every way of continuing prompts has in common: its settings, its results, and the ids that it must know.

Legend: B batch, P prompt, R response, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from dschat.data.batches import PromptBatch
from dschat.errors import UserError
from dschat.models.checked import CheckedModel
from dschat.models.tokenizer import Vocabulary


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen. Nothing else decides it, least of all a model folder's generation_config.json."""

    temperature: float
    """0 for the likeliest token."""
    top_k: int
    """Sample among this many likeliest tokens, 0 for all."""
    top_p: float
    """Sample among the likeliest tokens that together have this probability, 1 for all."""
    max_new_tokens: int
    """Longest answer, its end token included."""


@dataclass(frozen=True)
class EndTokens:
    """The token ids that generation has to know."""

    stop: tuple[int, ...]
    """Each ends an answer; none: every answer has `Sampling.max_new_tokens` tokens."""
    pad: int
    """Follows the end of an answer; may equal any other id."""
    vocabulary: Vocabulary
    """The ids that can be chosen: a row of the model's table without a token never is."""

    @classmethod
    def of(cls, checked: CheckedModel) -> EndTokens:
        """The end tokens of every program: the tokenizer's EOS, the end of a conversation, and what the model declares.

        Args:
            checked: the checkpoint, whose generation_config.json may declare more end tokens, as chat models' do.
        """
        return cls(checked.end_ids, checked.pad_token_id, checked.vocabulary)


class RowSeed(NamedTuple):
    """What a row's own random numbers are drawn from, whatever rows stand beside it."""

    seed: int
    """Of the whole run."""
    row: int
    """The number of the prompt in its dataset."""
    sample: int = 0
    """How many answers to the same prompt come before."""


@dataclass(frozen=True)
class Answers:
    """What B prompts were continued with."""

    tokens: Tensor
    """[B, R] int64; what follows a row's end token is padding."""
    lengths: Tensor
    """[B] int64, tokens of each answer, its end token included."""
    ended: Tensor
    """[B] bool, whether the answer has an end token."""
    finite: Tensor
    """[B] bool, False where a logit that a token was drawn from was NaN or infinite: that answer means nothing."""
    log_probs: Tensor | None = None
    """[B, R] float32, of the engine that sampled, where it tells them. PPO takes those of its training forward."""

    @classmethod
    def from_tokens(cls, tokens: Tensor, stop: Sequence[int], *, finite: Tensor | None = None) -> Answers:
        """Answers that end at their first stop token.

        Nothing is inferred from the padding token, which may be the EOS itself or may be sampled inside an answer.

        Args:
            tokens: [B, R] int64, R at least 1.
            stop: the ids that end an answer.
            finite: [B] bool; default: all True.
        """
        is_stop = torch.isin(tokens, torch.tensor(list(stop), device=tokens.device, dtype=tokens.dtype))
        ended = is_stop.any(dim=-1)
        first = is_stop.int().argmax(dim=-1)
        lengths = torch.where(ended, first + 1, tokens.shape[1])
        return cls(tokens, lengths, ended, torch.ones_like(ended) if finite is None else finite)

    @property
    def mask(self) -> Tensor:
        """[B, R] bool, True on each answer's tokens up to and including its end token."""
        return torch.arange(self.tokens.shape[1], device=self.tokens.device) < self.lengths[:, None]

    def ids(self) -> list[list[int]]:
        """B lists of token ids, the end token included where there is one.

        Raises:
            UserError: a row's logits were not finite.
        """
        if not bool(self.finite.all()):
            raise broken_logits()
        rows, lengths = self.tokens.tolist(), self.lengths.tolist()
        return [row[:length] for row, length in zip(rows, lengths, strict=True)]


def broken_logits() -> UserError:
    """The mistake of a model whose logits are not numbers."""
    return UserError(
        "the model's logits are NaN or infinite, so its answers mean nothing; its weights are damaged, or its numbers "
        "do not fit the precision: try bf16 or fp32"
    )


class Generator(Protocol):
    """Continues prompts. All ranks call every method together."""

    def generate(self, prompts: PromptBatch, sampling: Sampling, *, seeds: Sequence[RowSeed] | None = None) -> Answers:
        """The answers to B prompts; never an id that no token has.

        Args:
            prompts: [B, P].
            sampling: how tokens are chosen.
            seeds: [B], so that an answer depends on its own prompt and seed alone; None draws from torch's global
                random state.
        """
        ...

    def refresh(self) -> None:
        """Take over the policy's present weights after they have changed; nothing where they are read in place."""
        ...

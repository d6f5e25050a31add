"""Generators for tests: answers that a function of the prompts gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from dschat.data.batches import PromptBatch
from dschat.generation import Answers, RowSeed, Sampling
from toys.tokenizers import make_tokenizer

Answer = Callable[[PromptBatch], Tensor]
"""Answers [B, R] to prompts [B, P]."""


class FixedAnswers:
    """A Generator whose answers nothing but the prompts decide; counts how often the weights were taken over."""

    def __init__(self, answer: Answer, *, stop: Sequence[int] | None = None) -> None:
        """
        Args:
            answer: gives tokens of one width for all rows.
            stop: the ids that end an answer; default: the toy tokenizer's EOS.
        """
        self.answer = answer
        self.refreshed = 0
        self._stop = (int(make_tokenizer().eos_token_id),) if stop is None else stop

    def generate(self, prompts: PromptBatch, sampling: Sampling, *, seeds: Sequence[RowSeed] | None = None) -> Answers:
        """See Generator."""
        return Answers.from_tokens(self.answer(prompts), self._stop)

    def refresh(self) -> None:
        """See Generator."""
        self.refreshed += 1

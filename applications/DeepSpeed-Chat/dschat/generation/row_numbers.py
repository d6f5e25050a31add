"""Sampling that gives a prompt the same answers whatever prompts are beside it.

A library's sampler draws one random number after the other for the whole batch, so an answer depends on its
neighbours. Here every answer has its own numbers, one per token, drawn from the run's seed, the row's number and how
many answers to that row come before; a token is read off the cumulative probabilities (inverse transform sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from dschat.generation.base import RowSeed, Sampling


class RowSampler(LogitsProcessor):
    """Leaves one token possible per row: the one that the row's own random number points at."""

    def __init__(self, sampling: Sampling, seeds: Sequence[RowSeed], *, prompt_width: int) -> None:
        """
        Args:
            sampling: with a temperature above 0.
            seeds: [B] of the answers.
            prompt_width: columns before the first sampled token.
        """
        numbers = [answer_numbers(seed, sampling.max_new_tokens) for seed in seeds]
        self._uniform = torch.from_numpy(np.stack(numbers))
        self._prompt_width = prompt_width
        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] scores that are 0 at each row's token and -inf elsewhere; input_ids is [B, P + tokens so far]."""
        step = input_ids.shape[1] - self._prompt_width
        warped = self._warpers(cast(torch.LongTensor, input_ids), cast(torch.FloatTensor, scores.float()))
        tokens = pick(warped, self._uniform[:, step].to(scores.device))
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)


def answer_numbers(seed: RowSeed, count: int) -> np.ndarray:
    """[count] float64 in [0, 1): an answer's random numbers, of which a longer answer reads more."""
    return np.random.default_rng([*seed]).random(count)


def pick(scores: Tensor, uniform: Tensor) -> Tensor:
    """Draw from the distributions that scores stand for.

    Args:
        scores: [B, V] float32 log-probabilities up to a constant per row, -inf where impossible.
        uniform: [B] float64 in [0, 1).
    Returns:
        [B] int64: the first token whose cumulative probability exceeds the row's number.
    """
    cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
    total = cumulative[:, -1:]
    drawn = torch.searchsorted(cumulative, uniform[:, None] * total, right=True).squeeze(-1)
    # the target may round up to the total; the first place where the total is reached is the last possible token
    return torch.minimum(drawn, (cumulative < total).sum(dim=-1))

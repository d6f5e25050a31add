"""Sampling that gives a prompt the same answers whatever prompts are beside it.

A library's sampler draws one random number after the other for the whole batch, so an answer depends on its
neighbours. Here every answer has its own numbers, one per token, drawn from the seed, the row's number and how many
answers to that row come before; a token is read off the cumulative probabilities (inverse transform sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen."""

    temperature: float
    """0 for the likeliest token."""
    top_k: int
    """0 for all tokens."""
    top_p: float
    max_new_tokens: int
    seed: int


class Place(NamedTuple):
    """Which answer: the number of its prompt in the dataset, and of the answer among those to the same prompt."""

    row: int
    sample: int = 0


@dataclass(frozen=True)
class EndTokens:
    """The token ids that generation has to know."""

    stop: tuple[int, ...]
    """Each ends an answer."""
    pad: int
    vocab_size: int
    """Number of real tokens; rows of the model beyond it are never chosen."""


class RowSampler(LogitsProcessor):
    """Leaves one token possible per row: the one that the row's own random number points at."""

    def __init__(self, sampling: Sampling, places: Sequence[Place], *, prompt_width: int) -> None:
        """
        Args:
            sampling: with a temperature above 0.
            places: [B] which answers.
            prompt_width: columns before the first sampled token.
        """
        self._uniform = torch.from_numpy(np.stack([answer_numbers(sampling, place) for place in places]))
        self._prompt_width = prompt_width
        self._warpers = LogitsProcessorList([TemperatureLogitsWarper(sampling.temperature)])
        if sampling.top_k:
            self._warpers.append(TopKLogitsWarper(sampling.top_k))
        if sampling.top_p < 1:
            self._warpers.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """[B, V] scores that are 0 at each row's token and -inf elsewhere; input_ids is [B, P + tokens so far]."""
        step = input_ids.shape[1] - self._prompt_width
        tokens = pick(self._warpers(input_ids, scores.float()), self._uniform[:, step].to(scores.device))
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens[:, None], 0.0)


def answer_numbers(sampling: Sampling, place: Place) -> np.ndarray:
    """[max_new_tokens] float64 in [0, 1): an answer's random numbers, of which a longer answer reads more."""
    return np.random.default_rng([sampling.seed, *place]).random(sampling.max_new_tokens)


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


@torch.no_grad()
def answer_batch(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    places: Sequence[Place],
    sampling: Sampling,
    ends: EndTokens,
) -> list[list[int]]:
    """Answer each prompt.

    Args:
        model: in eval mode.
        prompts: B lists of token ids.
        places: [B] which answers to which prompts.
        sampling: how tokens are chosen.
        ends: end and padding tokens.
    Returns:
        B lists of token ids, the end token included where there is one.
    """
    width = max(len(prompt) for prompt in prompts)
    input_ids = torch.tensor([[ends.pad] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    model_rows = model.config.get_text_config().vocab_size
    settings = GenerationConfig(
        do_sample=False,
        max_new_tokens=sampling.max_new_tokens,
        eos_token_id=list(ends.stop),
        pad_token_id=ends.pad,
        suppress_tokens=list(range(ends.vocab_size, model_rows)) or None,
    )
    samplers = [RowSampler(sampling, places, prompt_width=width)] if sampling.temperature > 0 else []
    sequences = model.generate(
        input_ids=input_ids.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=settings,
        logits_processor=LogitsProcessorList(samplers),
    )
    return [_answer(row, ends.stop) for row in sequences[:, width:].tolist()]


def _answer(tokens: list[int], stop: Sequence[int]) -> list[int]:
    """The tokens up to and including the first end token."""
    end = next((index for index, token in enumerate(tokens) if token in stop), len(tokens))
    return tokens[: end + 1]

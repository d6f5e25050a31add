"""Drawing tokens from a row's own random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dschat.generation import RowSeed
from dschat.generation.row_numbers import answer_numbers, pick

SEED, LENGTH = 4, 9


def test_tokens_are_drawn_as_often_as_their_probabilities_say():
    torch.manual_seed(0)
    scores = torch.randn(31)
    scores[[3, 30]] = -torch.inf
    draws = 60_000
    uniform = torch.from_numpy(np.random.default_rng(0).random(draws))
    counts = torch.bincount(pick(scores.expand(draws, -1), uniform), minlength=31) / draws
    # four standard deviations of the most likely token's share
    assert torch.allclose(counts.double(), scores.double().softmax(-1), atol=4 * 0.5 / draws**0.5)
    assert counts[3] == 0 == counts[30]


@pytest.mark.parametrize("uniform", [0.0, 1 - 2**-53])
def test_extreme_numbers_give_the_first_and_the_last_possible_token(uniform):
    scores = torch.tensor([[-torch.inf, 0.0, 1.0, -3.0, -torch.inf]])
    assert pick(scores, torch.tensor([uniform], dtype=torch.float64)).item() == (1 if uniform == 0 else 3)


def test_numbers_depend_on_seed_and_answer_alone_and_longer_answers_extend_them():
    assert np.array_equal(answer_numbers(RowSeed(SEED, 7), 20)[:LENGTH], answer_numbers(RowSeed(SEED, 7), LENGTH))
    places = [(7,), (8,), (7, 1), (7, 2), (8, 1), (1, 7)]
    numbers = [answer_numbers(RowSeed(SEED, *place), LENGTH) for place in places]
    assert len({tuple(each) for each in numbers}) == len(places)
    # the first of several answers is the one that a single answer would be
    assert np.array_equal(numbers[0], np.random.default_rng([4, 7]).random(9))

"""Drawing tokens from a row's own random numbers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dschat.answering.sampling import Place, Sampling, answer_numbers, pick

SAMPLING = Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=9, seed=4)


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
    longer = Sampling(temperature=0.5, top_k=3, top_p=0.5, max_new_tokens=20, seed=4)
    assert np.array_equal(answer_numbers(longer, Place(7))[:9], answer_numbers(SAMPLING, Place(7)))
    places = [Place(7), Place(8), Place(7, 1), Place(7, 2), Place(8, 1), Place(1, 7)]
    numbers = [answer_numbers(SAMPLING, place) for place in places]
    assert len({tuple(each) for each in numbers}) == len(places)
    # the first of several answers is the one that a single answer would be
    assert np.array_equal(numbers[0], np.random.default_rng([4, 7]).random(9))

"""Segments of answers against literal loops, row by row."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dschat.rlhf.macro_actions import RANDOM_LENGTHS, random_lengths, segment_advantages, segment_boundaries
from dschat.rlhf.ppo_math import generalized_advantages
from tests.oracles.segment_loops import fixed_starts, perplexity_starts, randomized_starts, segment_row

ROWS, WIDTH = 8, 23
TOLERANCE = 1e-5  # float32 against float64, sums of at most 23 terms
VALUE_FUNCTIONS = ("equal", "unit", "position")


def make_mask(seed: int, rows: int = ROWS, width: int = WIDTH) -> tuple[Tensor, list[int]]:
    lengths = torch.randint(0, width + 1, (rows,), generator=torch.Generator().manual_seed(seed)).tolist()
    lengths[0] = width
    lengths[-1] = 0 if rows > 1 else lengths[-1]
    return torch.arange(width)[None] < torch.tensor(lengths)[:, None], lengths


def make_inputs(condition: str, lengths: list[int], seed: int, ngram: int) -> tuple[dict[str, object], list[list[int]]]:
    """Inputs of `segment_boundaries`, and what a loop says about each row."""
    generator = torch.Generator().manual_seed(seed)
    match condition:
        case "fixed":
            return {"ngram": ngram}, [fixed_starts(n, ngram) for n in lengths]
        case "randomized":
            decks = random_lengths(range(seed, seed + len(lengths)), repeat_times=1)
            return {"lengths": decks}, [
                randomized_starts(n, deck) for n, deck in zip(lengths, decks.tolist(), strict=True)
            ]
        case "ppl":
            log_probs = -3 * torch.rand(len(lengths), WIDTH, generator=generator)
            # equal neighbours are no rise
            log_probs[:, 4] = log_probs[:, 3]
            perplexities = (-log_probs.double()).exp()
            return {"log_probs": log_probs}, [
                perplexity_starts(row[:n].tolist()) for n, row in zip(lengths, perplexities, strict=True)
            ]
        case _:
            parsed: list[list[int] | None] = [
                None if row % 3 == 1 else sorted(torch.randperm(max(n, 1), generator=generator)[: n // 3].tolist())
                for row, n in enumerate(lengths)
            ]
            expected = [
                fixed_starts(n, ngram) if p is None else sorted({0, *p} if n else set())
                for n, p in zip(lengths, parsed, strict=True)
            ]
            return {"parsed": parsed, "ngram": ngram}, expected


def row_inputs(inputs: dict[str, object], row: int) -> dict[str, object]:
    return {name: value if name == "ngram" else value[row : row + 1] for name, value in inputs.items()}


@pytest.mark.parametrize("condition", ["fixed", "randomized", "ppl", "parsing"])
@pytest.mark.parametrize("seed", range(4))
def test_each_rule_equals_its_loop_and_a_batch_equals_its_rows(condition: str, seed: int) -> None:
    mask, lengths = make_mask(seed)
    inputs, expected = make_inputs(condition, lengths, seed, ngram=seed + 1)
    starts = segment_boundaries(mask, condition=condition, **inputs)
    assert [row.nonzero().flatten().tolist() for row in starts] == expected
    alone = [segment_boundaries(mask[i : i + 1], condition=condition, **row_inputs(inputs, i)) for i in range(ROWS)]
    assert torch.equal(torch.cat(alone), starts)


@pytest.mark.parametrize("value_function", VALUE_FUNCTIONS)
@pytest.mark.parametrize("condition", ["fixed", "randomized", "ppl", "parsing"])
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5)])
def test_advantages_and_returns_equal_the_loop(condition: str, value_function: str, gamma: float, lam: float) -> None:
    mask, lengths = make_mask(11)
    inputs, expected = make_inputs(condition, lengths, 11, ngram=3)
    generator = torch.Generator().manual_seed(7)
    rewards, values = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    starts = segment_boundaries(mask, condition=condition, **inputs)
    settings = {"value_function": value_function, "gamma": gamma, "lam": lam}
    advantages, returns = segment_advantages(rewards, values, mask, starts, **settings)
    for row, n in enumerate(lengths):
        loop = segment_row(rewards[row, :n].tolist(), values[row, :n].tolist(), expected[row], **settings)
        for ours, theirs in zip((advantages, returns), loop, strict=True):
            padded = torch.tensor(theirs + [0.0] * (WIDTH - n), dtype=torch.float64)
            torch.testing.assert_close(ours[row].double(), padded, atol=TOLERANCE, rtol=TOLERANCE)
        alone = slice(row, row + 1)
        again = segment_advantages(rewards[alone], values[alone], mask[alone], starts[alone], **settings)
        assert torch.equal(again[0], advantages[alone])
        assert torch.equal(again[1], returns[alone])


@pytest.mark.parametrize("value_function", VALUE_FUNCTIONS)
@pytest.mark.parametrize("seed", range(3))
def test_segments_of_one_token_are_plain_ppo_bit_for_bit(value_function: str, seed: int) -> None:
    mask, _ = make_mask(seed)
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))
    starts = segment_boundaries(mask, condition="fixed", ngram=1)
    assert torch.equal(starts, mask)
    ours = segment_advantages(rewards, values, mask, starts, value_function=value_function, gamma=0.97, lam=0.9)
    plain = generalized_advantages(rewards, values, mask, gamma=0.97, lam=0.9)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_one_segment_earns_the_whole_reward_against_its_value() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    rewards, values = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[2.0, 4.0, 6.0, 8.0]])
    starts = segment_boundaries(mask, condition="fixed", ngram=9)
    expected = {"equal": 5.0, "unit": 8.0, "position": (2 + 4 / 2 + 6 / 3 + 8 / 4) / (1 + 1 / 2 + 1 / 3 + 1 / 4)}
    for value_function, value in expected.items():
        advantages, returns = segment_advantages(
            rewards, values, mask, starts, value_function=value_function, gamma=0.5, lam=0.5
        )
        assert advantages[0].tolist() == pytest.approx([10 - value] * 4)
        assert returns[0].tolist() == pytest.approx([10.0] * 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(0, 6), st.integers(0, 10_000))
def test_padding_columns_change_nothing(ngram: int, extra: int, seed: int) -> None:
    mask, _ = make_mask(seed)
    generator = torch.Generator().manual_seed(seed)
    rewards, values = (torch.randn(ROWS, WIDTH, generator=generator) for _ in range(2))

    def pad(t: Tensor) -> Tensor:
        return torch.nn.functional.pad(t, (0, extra), value=False if t.dtype == torch.bool else 77.0)

    def run(rewards: Tensor, values: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        starts = segment_boundaries(mask, condition="fixed", ngram=ngram)
        options = {"value_function": "position", "gamma": 1.0, "lam": 0.95}
        return tuple(x[:, :WIDTH] for x in segment_advantages(rewards, values, mask, starts, **options))

    narrow, wide = run(rewards, values, mask), run(*map(pad, (rewards, values, mask)))
    assert all(torch.equal(a, b) for a, b in zip(narrow, wide, strict=True))


def test_random_lengths_are_the_published_deck_in_seeded_order() -> None:
    lengths = random_lengths([5, 6, 5], repeat_times=3)
    assert lengths.shape == (3, 15)
    assert all(sorted(row) == sorted(RANDOM_LENGTHS * 3) for row in lengths.tolist())
    assert torch.equal(lengths[0], lengths[2])
    assert not torch.equal(lengths[0], lengths[1])


def test_missing_input_is_an_error() -> None:
    mask = torch.ones(1, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="'randomized' lack their input"):
        segment_boundaries(mask, condition="randomized")
    with pytest.raises(ValueError, match="ngram must be at least 1"):
        segment_boundaries(mask, condition="fixed", ngram=0)

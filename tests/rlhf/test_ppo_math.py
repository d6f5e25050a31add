"""PPO's arithmetic against loops in Python floats."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dschat.rlhf.ppo_math import (
    clip_penalty,
    generalized_advantages,
    masked_sums,
    policy_loss,
    shape_rewards,
    value_loss,
    whiten,
)
from tests.oracles.ppo_loops import policy_term, ppo_row, value_term

TOLERANCE = 1e-5  # float32 against float64, sums of at most 13 terms


def random_case(rows: int, width: int, seed: int) -> tuple[dict[str, Tensor], list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(0, width + 1, (rows,), generator=generator).tolist()
    mask = torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]
    names = ("penalty", "values", "old", "new", "old_values", "new_values")
    case = {name: torch.randn(rows, width, generator=generator) for name in names}
    case["score"] = 3 * torch.randn(rows, generator=generator)
    case["mask"] = mask
    return case, lengths


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.5), (1.0, 1.0), (0.97, 0.0)])
def test_rewards_advantages_and_returns_equal_the_loop(seed: int, gamma: float, lam: float) -> None:
    case, lengths = random_case(rows=7, width=13, seed=seed)
    rewards = shape_rewards(case["penalty"], case["score"], case["mask"], penalty_coef=0.3, score_clip=2.5)
    advantages, returns = generalized_advantages(rewards, case["values"], case["mask"], gamma=gamma, lam=lam)
    for row, n in enumerate(lengths):
        expected = ppo_row(
            case["penalty"][row, :n].double().tolist(), case["score"][row].item(), case["values"][row, :n].tolist(),
            beta=0.3, clip=2.5, gamma=gamma, lam=lam,
        )  # fmt: skip
        for ours, theirs in (
            (rewards, expected.rewards),
            (advantages, expected.advantages),
            (returns, expected.returns),
        ):
            padded = theirs + [0.0] * (13 - n)
            torch.testing.assert_close(
                ours[row].double(), torch.tensor(padded).double(), atol=TOLERANCE, rtol=TOLERANCE
            )


@pytest.mark.parametrize("seed", range(5))
def test_losses_equal_the_loop(seed: int) -> None:
    case, lengths = random_case(rows=5, width=11, seed=seed)
    advantages, returns = case["penalty"], case["values"]
    loss, clipped = policy_loss(case["new"], case["old"], advantages, case["mask"], clip=0.2)
    critic = value_loss(case["new_values"], case["old_values"], returns, case["mask"], clip=0.2)
    expected_policy = expected_value = 0.0
    expected_clipped = 0
    for row, n in enumerate(lengths):
        for t in range(n):
            new, old = case["new"][row, t].item(), case["old"][row, t].item()
            expected_policy += policy_term(new, old, advantages[row, t].item(), 0.2)
            ratio = torch.tensor(new - old).exp().item()
            expected_clipped += not 0.8 <= ratio <= 1.2
            expected_value += value_term(
                case["new_values"][row, t].item(), case["old_values"][row, t].item(), returns[row, t].item(), 0.2
            )
    assert loss.item() == pytest.approx(expected_policy, rel=1e-5)
    assert critic.item() == pytest.approx(expected_value, rel=1e-5)
    assert clipped.item() == expected_clipped


def test_score_lands_on_the_last_response_token_and_nowhere_else() -> None:
    mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]], dtype=torch.bool)
    rewards = shape_rewards(torch.zeros(3, 4), torch.tensor([1.0, -9.0, 5.0]), mask, penalty_coef=1.0, score_clip=2.5)
    assert rewards.tolist() == [[0, 0, 1, 0], [0, 0, 0, -2.5], [0, 0, 0, 0]]


@pytest.mark.parametrize("dual", [1.5, 3.0])
def test_dual_clip_equals_the_loop_and_bounds_bad_tokens(dual: float) -> None:
    case, lengths = random_case(rows=9, width=11, seed=8)
    new = 3 * case["new"]
    loss, _ = policy_loss(new, case["old"], case["penalty"], case["mask"], clip=0.2, dual_clip=dual)
    plain, _ = policy_loss(new, case["old"], case["penalty"], case["mask"], clip=0.2)
    terms = [
        policy_term(new[row, t].item(), case["old"][row, t].item(), case["penalty"][row, t].item(), 0.2, dual)
        for row, n in enumerate(lengths)
        for t in range(n)
    ]
    assert loss.item() == pytest.approx(sum(terms), rel=1e-5)
    assert loss < plain
    worst = case["penalty"].min().abs().item()
    assert max(terms) <= dual * worst + 1e-6


@pytest.mark.parametrize("seed", range(3))
def test_whitening_equals_numbers_taken_by_hand_also_when_ranks_share_the_rows(seed: int) -> None:
    case, lengths = random_case(rows=8, width=9, seed=seed)
    values, mask = 5 + 3 * case["values"], case["mask"]
    kept = [values[row, t].item() for row, n in enumerate(lengths) for t in range(n)]
    mean = sum(kept) / len(kept)
    deviation = (sum((v - mean) ** 2 for v in kept) / len(kept)) ** 0.5
    sums = masked_sums(values[:3], mask[:3]) + masked_sums(values[3:], mask[3:])
    whitened = whiten(values, mask, sums)
    for row, n in enumerate(lengths):
        expected = [(values[row, t].item() - mean) / deviation for t in range(n)] + [0.0] * (9 - n)
        assert whitened[row].tolist() == pytest.approx(expected, abs=1e-5)


def test_whitening_of_equal_or_no_values_is_zero() -> None:
    for mask in (torch.ones(2, 3, dtype=torch.bool), torch.zeros(2, 3, dtype=torch.bool)):
        values = torch.full((2, 3), 0.1)
        assert whiten(values, mask, masked_sums(values, mask)).abs().max() < 1e-3


def test_penalties_are_clipped_in_units_of_the_reward() -> None:
    penalty = torch.tensor([[-9.0, 0.5, 9.0, torch.inf]])
    assert clip_penalty(penalty, penalty_coef=0.5, clip=2.0).tolist() == [[-4.0, 0.5, 4.0, 4.0]]
    assert clip_penalty(penalty, penalty_coef=0.5, clip=None) is penalty
    mask = torch.ones(1, 4, dtype=torch.bool)
    rewards = shape_rewards(penalty, torch.zeros(1), mask, penalty_coef=0.0, score_clip=1.0)
    assert torch.equal(rewards, torch.zeros(1, 4))


def test_a_deduction_is_taken_from_the_clipped_score() -> None:
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]], dtype=torch.bool)
    rewards = shape_rewards(
        torch.zeros(3, 2), torch.tensor([-9.0, 9.0, 1.0]), mask, penalty_coef=1.0, score_clip=2.5,
        deduction=torch.tensor([1.0, 0.0, 1.0]),
    )  # fmt: skip
    assert rewards.tolist() == [[0, -3.5], [2.5, 0], [0, 0]]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(0, 6), st.integers(0, 10_000))
def test_padding_columns_change_nothing(rows: int, width: int, extra: int, seed: int) -> None:
    case, _ = random_case(rows, width, seed)
    pad = lambda t: torch.nn.functional.pad(t, (0, extra), value=False if t.dtype == torch.bool else 77.0)  # noqa: E731

    def run(c: dict[str, Tensor]) -> tuple[Tensor, ...]:
        rewards = shape_rewards(c["penalty"], c["score"], c["mask"], penalty_coef=0.1, score_clip=2.5)
        advantages, returns = generalized_advantages(rewards, c["values"], c["mask"], gamma=1.0, lam=0.95)
        loss, _ = policy_loss(c["new"], c["old"], advantages, c["mask"], clip=0.2)
        critic = value_loss(c["new_values"], c["old_values"], returns, c["mask"], clip=0.2)
        return advantages[:, :width], returns[:, :width], loss, critic

    wide = {name: pad(t) if t.dim() == 2 else t for name, t in case.items()}
    for narrow_result, wide_result in zip(run(case), run(wide), strict=True):
        torch.testing.assert_close(narrow_result, wide_result, atol=1e-6, rtol=1e-6)


def test_values_after_the_end_of_a_row_do_not_leak() -> None:
    mask = torch.tensor([[1, 1, 0]], dtype=torch.bool)
    rewards = torch.zeros(1, 3)
    clean, _ = generalized_advantages(rewards, torch.tensor([[0.5, 0.25, 0.0]]), mask, gamma=1.0, lam=0.95)
    dirty, _ = generalized_advantages(rewards, torch.tensor([[0.5, 0.25, 1e9]]), mask, gamma=1.0, lam=0.95)
    assert torch.equal(clean, dirty)
    assert clean[0, 1].item() == -0.25


def test_losses_of_an_empty_batch_are_zero_and_differentiable() -> None:
    log_probs = torch.randn(2, 3, requires_grad=True)
    loss, clipped = policy_loss(
        log_probs, torch.zeros(2, 3), torch.ones(2, 3), torch.zeros(2, 3, dtype=torch.bool), clip=0.2
    )
    loss.backward()
    assert loss.item() == 0
    assert clipped.item() == 0
    assert torch.equal(log_probs.grad, torch.zeros(2, 3))

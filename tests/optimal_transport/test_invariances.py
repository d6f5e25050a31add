"""What must not matter: the order of the vocabulary, chunks, batch-mates, memory layout, dtype context, repetition."""

from __future__ import annotations

import pytest
import torch

from dschat.optimal_transport import TokenGeometry, TokenPotentials, potentials, token_potentials
from tests.optimal_transport.problems import Problem, random_problem

TRANSPORTS = [
    {"transport": "truncated", "epsilon": 0.05},
    {"transport": "truncated", "epsilon": 0.05, "normalize": True},
    {"transport": "capped", "epsilon": 0.1, "max_iter": 30},
    {"transport": "capped", "epsilon": 0.1, "max_iter": 30, "debias": True},
]
each_transport = pytest.mark.parametrize("settings", TRANSPORTS)
FIELDS = ["potential", "marginal_error", "policy_tail_mass", "reference_tail_mass", "kept_neighbors"]


def solve(problem: Problem, **settings: object) -> TokenPotentials:
    geometry = TokenGeometry.from_embeddings(problem.embeddings, num_neighbors=9, far_cost=1.5)
    return token_potentials(*problem[:3], geometry, **{"top_k": 11, **settings})


@pytest.fixture(scope="module")
def problem() -> Problem:
    return random_problem(seed=20, positions=37, vocab_size=407, clusters=31, uniform_tokens=True)


def assert_same(found: TokenPotentials, expected: TokenPotentials, *, atol: float = 1e-6) -> None:
    for name in FIELDS:
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=atol, rtol=0, msg=name)
    assert expected.potential.abs().max() > 0.01


@each_transport
def test_permuting_the_vocabulary_changes_nothing(problem: Problem, settings: dict[str, object]) -> None:
    order = torch.randperm(407, generator=torch.Generator().manual_seed(0))
    permuted = Problem(
        problem.policy_logits[:, order],
        problem.reference_logits[:, order],
        order.argsort()[problem.tokens],
        problem.embeddings[order],
    )
    assert_same(solve(permuted, **settings), solve(problem, **settings))


@each_transport
@pytest.mark.parametrize("elements", [1, 7_000])
def test_chunks_change_nothing(
    problem: Problem, settings: dict[str, object], elements: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = solve(problem, **settings)
    monkeypatch.setattr(potentials, "_CHUNK_ELEMENTS", elements)
    assert_same(solve(problem, **settings), expected, atol=1e-7)


@each_transport
def test_other_rows_in_the_batch_change_nothing(problem: Problem, settings: dict[str, object]) -> None:
    few = Problem(*(tensor[5:8] for tensor in problem[:3]), problem.embeddings)
    together = solve(problem, **settings)
    expected = TokenPotentials(*(None if field is None else field[5:8] for field in together))
    assert_same(solve(few, **settings), expected)


@each_transport
def test_padded_vocabulary_columns_that_are_sliced_off_change_nothing(
    problem: Problem, settings: dict[str, object]
) -> None:
    padded = problem._replace(
        policy_logits=torch.nn.functional.pad(problem.policy_logits, (0, 9), value=50.0)[:, :407],
        reference_logits=torch.nn.functional.pad(problem.reference_logits, (0, 9), value=-50.0)[:, :407],
        embeddings=torch.cat([problem.embeddings, torch.zeros(9, problem.embeddings.shape[1])])[:407],
    )
    assert not padded.policy_logits.is_contiguous()
    assert_same(solve(padded, **settings), solve(problem, **settings), atol=0)


@each_transport
def test_autocast_and_grad_mode_change_nothing(problem: Problem, settings: dict[str, object]) -> None:
    with_grad = problem._replace(policy_logits=problem.policy_logits.clone().requires_grad_())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = solve(with_grad, **settings)
    assert not found.potential.requires_grad
    assert_same(found, solve(problem, **settings), atol=0)


@each_transport
def test_same_inputs_give_the_same_bits(problem: Problem, settings: dict[str, object]) -> None:
    first, second = solve(problem, **settings), solve(problem, **settings)
    assert torch.equal(first.potential, second.potential)


@each_transport
def test_adding_a_constant_to_the_logits_changes_nothing(problem: Problem, settings: dict[str, object]) -> None:
    shifted = problem._replace(policy_logits=problem.policy_logits + 8.0)  # exact enough in float32
    assert_same(solve(shifted, **settings), solve(problem, **settings), atol=3e-6)


@each_transport
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_widened_once(
    problem: Problem, settings: dict[str, object], dtype: torch.dtype
) -> None:
    half = problem._replace(
        policy_logits=problem.policy_logits.to(dtype), reference_logits=problem.reference_logits.to(dtype)
    )
    wide = half._replace(policy_logits=half.policy_logits.float(), reference_logits=half.reference_logits.float())
    found, expected = solve(half, **settings), solve(wide, **settings)
    assert found.potential.dtype == torch.float32
    assert_same(found, expected, atol=0)


@each_transport
def test_top_k_beyond_the_vocabulary_means_all_of_it(problem: Problem, settings: dict[str, object]) -> None:
    few = Problem(*(tensor[:3] for tensor in problem[:3]), problem.embeddings)
    found = solve(few, top_k=10_000, **settings)
    assert_same(found, solve(few, top_k=407, **settings), atol=0)
    assert found.policy_tail_mass.max() == 0


@each_transport
def test_no_positions_give_empty_results(problem: Problem, settings: dict[str, object]) -> None:
    empty = Problem(*(tensor[:0] for tensor in problem[:3]), problem.embeddings)
    for support in ("position", "batch"):
        result = solve(empty, support=support, **settings)
        assert result.potential.shape == result.num_iterations.shape == (0,)


@each_transport
def test_batch_support_of_one_position_is_its_own(problem: Problem, settings: dict[str, object]) -> None:
    one = Problem(*(tensor[3:4] for tensor in problem[:3]), problem.embeddings)
    assert_same(solve(one, support="batch", **settings), solve(one, **settings))


def test_batch_support_makes_positions_depend_on_each_other(problem: Problem) -> None:
    few = Problem(*(tensor[5:8] for tensor in problem[:3]), problem.embeddings)
    together = solve(problem, support="batch", epsilon=0.3).potential[5:8]
    apart = solve(few, support="batch", epsilon=0.3).potential
    assert (together - apart).abs().max() > 1e-3  # why "position" is the default

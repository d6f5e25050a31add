"""The four-token example says what the documents say."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import root
from scipy.special import logsumexp, softmax

import worked_example
from tests.oracles.dense_transport import capped_costs

ROOT = Path(__file__).parents[2]
KL, JS, PUBLISHED, _, CAPPED, DEBIASED = range(len(worked_example.COLUMNS))


@pytest.fixture(scope="module")
def moves() -> dict[str, worked_example.Move]:
    return {move.target: move for move in worked_example.moves()}


def test_kl_and_js_match_sums_by_hand(moves: dict[str, worked_example.Move]) -> None:
    policy, reference = (0.42, 0.46), (0.82, 0.06)  # the two tokens that change
    kl = sum(p * math.log(p / q) for p, q in zip(policy, reference, strict=True))
    middle = [(p + q) / 2 for p, q in zip(policy, reference, strict=True)]
    js = sum(
        0.5 * side * math.log(side / m) for sides in (policy, reference) for side, m in zip(sides, middle, strict=True)
    )

    assert moves["dog"].means[KL] == pytest.approx(kl, abs=1e-6)
    assert moves["dog"].means[JS] == pytest.approx(js, abs=1e-6)
    assert moves["dog"].gained[KL] == pytest.approx(math.log(0.46 / 0.06), abs=1e-6)


def test_penalties_without_geometry_cannot_tell_the_moves_apart(moves: dict[str, worked_example.Move]) -> None:
    for column in (KL, JS, PUBLISHED):
        values = [moves[target].means[column] for target in ("kitten", "dog", "table")]
        assert values == pytest.approx([values[0]] * 3, abs=1e-6)
        assert values[0] > 0


@pytest.mark.parametrize("column", [CAPPED, DEBIASED])
def test_capped_penalties_grow_with_the_distance(moves: dict[str, worked_example.Move], column: int) -> None:
    near, middle, far = (moves[target] for target in ("kitten", "dog", "table"))

    assert near.distance < middle.distance < far.distance
    assert 1.5 * near.means[column] < middle.means[column] < far.means[column] / 1.5
    assert near.gained[column] < middle.gained[column] < far.gained[column]


def test_only_the_divergences_are_zero_where_nothing_moved(moves: dict[str, worked_example.Move]) -> None:
    still = moves["nothing"].means

    assert [abs(still[column]) < 1e-6 for column in (KL, JS, DEBIASED)] == [True] * 3
    assert abs(still[PUBLISHED]) > 1e-3 and abs(still[CAPPED]) > 1e-3


def as_float32_logits(masses: np.ndarray) -> np.ndarray:
    """What is left of [V] masses after a float32 logarithm; "table" has so little exchange that it shows."""
    rounded = np.exp(np.log(masses).astype(np.float32).astype(np.float64))
    return rounded / rounded.sum()


def dense_potentials(p: np.ndarray, q: np.ndarray, costs: np.ndarray, epsilon: float) -> tuple[np.ndarray, float]:
    """Potential [V] with the mean of its partner at 0, and the value, by root finding: Sinkhorn takes for ever here."""

    def exponent(unknown: np.ndarray) -> np.ndarray:
        return (unknown[:4, None] + np.append(unknown[4:], 0.0)[None] - costs) / epsilon

    def wrong(unknown: np.ndarray) -> np.ndarray:
        plan = exponent(unknown)
        return np.append(logsumexp(plan, axis=1) - np.log(p), (logsumexp(plan, axis=0) - np.log(q))[:3])

    def slope(unknown: np.ndarray) -> np.ndarray:
        plan = exponent(unknown)
        by_row, by_column = softmax(plan, axis=1)[:, :3], softmax(plan, axis=0)[:, :3].T
        return np.block([[np.eye(4), by_row], [by_column, np.eye(3)]]) / epsilon

    found = root(wrong, np.zeros(7), jac=slope, method="lm", tol=1e-15).x
    for _ in range(5):  # "table" exchanges so little mass that the last digits of the marginals decide its potential
        found = found - np.linalg.solve(slope(found), wrong(found))
    assert np.abs(wrong(found)).max() < 1e-12, "the oracle found no solution"
    potential = found[:4] + q[:3] @ found[4:]
    return potential, float(p @ potential)


@pytest.mark.parametrize("target", [1, 2, 3])
def test_capped_columns_match_a_dense_float64_solution(moves: dict[str, worked_example.Move], target: int) -> None:
    places = np.array(worked_example.PLACES)
    distances = np.linalg.norm(places[:, None] - places[None], axis=-1)
    kept = np.zeros((4, 4), dtype=bool)
    for a, b in ((0, 1), (0, 2), (1, 3)):  # each token with its nearest one
        kept[a, b] = kept[b, a] = True
    costs = capped_costs(distances, kept, worked_example.FAR_COST)
    reference = np.array(worked_example.REFERENCE)
    policy = reference.copy()
    policy[0] -= 0.4
    policy[target] += 0.4
    policy, reference = (as_float32_logits(masses) for masses in (policy, reference))
    epsilon = worked_example.EPSILON_IN_NEAREST * distances[0, 1]

    solved = [
        dense_potentials(p, q, costs, epsilon) for p, q in ((policy, reference), (policy, policy), (reference,) * 2)
    ]
    (potential, distance), (own, within_policy), (_, within_reference) = solved
    divergence = distance - within_policy / 2 - within_reference / 2
    debiased = potential - own
    debiased += divergence - policy @ debiased

    move = moves[worked_example.TOKENS[target]]
    assert move.means[CAPPED] == pytest.approx(distance, abs=1e-5)
    assert move.gained[CAPPED] == pytest.approx(potential[target], abs=1e-5)
    assert move.means[DEBIASED] == pytest.approx(divergence, abs=1e-5)
    assert move.gained[DEBIASED] == pytest.approx(debiased[target], abs=1e-5)


def test_document_holds_the_table_that_the_script_writes(moves: dict[str, worked_example.Move]) -> None:
    table = worked_example.markdown(list(moves.values()))

    assert len(table.splitlines()) == 2 + len(worked_example.TOKENS)
    assert table in (ROOT / "docs" / "regularizers.md").read_text(encoding="utf-8")


def test_picture_is_written(moves: dict[str, worked_example.Move], tmp_path: Path) -> None:
    worked_example.draw(tmp_path / "example.png", list(moves.values()))

    assert (tmp_path / "example.png").read_bytes().startswith(b"\x89PNG")

"""From verdicts to numbers, counted by hand."""

from __future__ import annotations

from dataclasses import replace
from itertools import accumulate
from math import comb

import pytest

from dschat.answering.results import Result
from dschat.judging.pairs import Pair, Side
from dschat.judging.tally import Counts, bootstrap_interval, pair_outcomes, summarize, win_rate
from dschat.judging.verdicts import REWARD_MODEL, Order, Verdict, Winner


def verdict(
    row: int, first: Side, winner: Winner | None, *, lengths: tuple[int, int] = (1, 1),
    rewards: tuple[float | None, float | None] = (None, None), order: Order = "both",
) -> Verdict:  # fmt: skip
    answers = [Result("p", "x" * length, reward) for length, reward in zip(lengths, rewards, strict=True)]
    return Verdict(
        f"{row}{first}", Pair(row, "p", *answers), first, order, "judged" if winner else "failed", winner,
        replies=("A",) if winner else (), requests=1,
    )  # fmt: skip


BOTH_FOR_A = [
    verdict(0, "A", "A", lengths=(3, 1), rewards=(1, 2)),
    verdict(0, "B", "A", lengths=(3, 1), rewards=(1, 2)),
]
DISAGREE = [verdict(1, "A", "A"), verdict(1, "B", "B")]
FAILED = [verdict(2, "A", None), verdict(2, "B", "B")]
HALF = [verdict(3, "A", "B")]
BOTH_FOR_B = [verdict(4, "A", "B", lengths=(3, 1)), verdict(4, "B", "B", lengths=(3, 1))]
ALL = [*BOTH_FOR_A, *DISAGREE, *FAILED, *HALF, *BOTH_FOR_B]


def test_a_pair_needs_all_its_verdicts_and_orders_that_disagree_are_a_tie() -> None:
    found = {outcome.row: (outcome.state, outcome.winner, outcome.agreed) for outcome in pair_outcomes(ALL)}
    assert found == {
        0: ("judged", "A", True), 1: ("judged", "Tie", False), 2: ("failed", None, True), 3: ("pending", None, True),
        4: ("judged", "B", True),
    }  # fmt: skip


def test_a_question_asked_again_counts_by_its_last_verdict() -> None:
    again = [*FAILED, replace(verdict(2, "A", "B"), key="2A")]
    (outcome,) = pair_outcomes(again)
    assert (outcome.state, outcome.winner) == ("judged", "B")


def test_the_summary_matches_counts_by_hand() -> None:
    found = summarize(ALL, model_a="a", model_b="b", dataset="d", judge="j", num_pairs=6)
    assert (found.judged, found.failed, found.pending) == (3, 1, 2)
    assert (found.wins, found.ties, found.losses, found.disagreeing) == (1, 1, 1, 1)
    assert (found.win_rate, found.win_rate_agreeing_only) == (0.5, 0.5)
    # by row, first and second: 1 1, 2 0, 1 0, 0 1, 1 1
    assert (found.shown_first_chosen, found.shown_second_chosen) == (5, 3)
    assert found.position_bias == 5 / 8
    assert found.length_bias == 0.5  # A won by the longer answer, B by the shorter one
    assert found.reward_agreement == 0.0  # one pair has rewards, and its winner the lower one
    assert (found.requests, found.failed_verdicts, found.unparsable_verdicts) == (9, 1, 0)
    itself = summarize(ALL, model_a="a", model_b="b", dataset="d", judge=REWARD_MODEL, num_pairs=6)
    assert itself.reward_agreement is None


def test_nothing_judged_has_no_rate() -> None:
    found = summarize([], model_a="a", model_b="b", dataset="d", judge="j", num_pairs=2)
    assert (found.win_rate, found.interval, found.position_bias, found.pending) == (None, None, None, 2)


@pytest.mark.parametrize("wins", [3, 10, 17])
def test_the_interval_is_that_of_the_binomial(wins: int) -> None:
    total = 20
    low, high = bootstrap_interval(Counts(wins, 0, total - wins)) or (0, 0)
    share = wins / total
    chances = [comb(total, k) * share**k * (1 - share) ** (total - k) for k in range(total + 1)]
    below = list(accumulate(chances))
    exact = [next(count for count in range(21) if below[count] >= level) / total for level in (0.025, 0.975)]
    assert (low, high) == pytest.approx(exact, abs=0.051)  # one pair, where a quantile lies between two counts
    assert win_rate(Counts(1, 2, 1)) == 0.5

"""pass@k against counting all choices, and intervals against their definition."""

from __future__ import annotations

import math
from itertools import combinations
from statistics import fmean

import pytest

from dschat.answering.pass_rates import Graded, by_difficulty, mean_share, pass_at_k, pass_rates


@pytest.mark.parametrize("num_samples", [1, 2, 5, 9])
def test_pass_at_k_is_the_share_of_choices_with_a_right_program(num_samples):
    for num_right in range(num_samples + 1):
        right = [sample < num_right for sample in range(num_samples)]
        for k in range(1, num_samples + 1):
            choices = [any(choice) for choice in combinations(right, k)]
            assert pass_at_k(num_samples, num_right, k) == pytest.approx(fmean(choices), abs=1e-15)


def test_pass_at_k_equals_the_published_product_for_many_samples():
    # the numerically stable form of Chen et al. (2021), Fig. 3
    product = 1 - math.prod(1 - 100 / i for i in range(1000 - 3 + 1, 1000 + 1))
    assert pass_at_k(1000, 3, 100) == pytest.approx(product, rel=1e-12)


@pytest.mark.parametrize(("num_samples", "num_right", "k"), [(5, 2, 6), (5, 2, 0), (5, 6, 1), (5, -1, 1)])
def test_impossible_counts_are_refused(num_samples, num_right, k):
    with pytest.raises(ValueError, match="no pass@"):
        pass_at_k(num_samples, num_right, k)


@pytest.mark.parametrize(("right", "total"), [(0, 7), (7, 7), (3, 10), (1, 200)])
def test_interval_of_a_share_of_right_programs_is_wilsons(right, total):
    share = mean_share([1.0] * right + [0.0] * (total - right))
    assert share is not None
    assert share.mean == right / total
    # its ends are the shares from which the one found is 1.96 standard errors away
    for end in (share.low, share.high):
        error = math.sqrt(end * (1 - end) / total)
        assert abs(share.mean - end) == pytest.approx(1.96 * error, abs=1e-9)
    assert share.low <= share.mean <= share.high
    assert share.high - share.low > 0


def test_numbers_that_vary_less_have_a_narrower_interval_near_the_normal_one():
    values = [0.4, 0.5, 0.6] * 100
    share = mean_share(values)
    assert share is not None
    deviation = math.sqrt(fmean((value - 0.5) ** 2 for value in values))
    assert (share.high - share.low) / 2 == pytest.approx(1.96 * deviation / math.sqrt(300), rel=0.01)
    assert mean_share([]) is None


PROBLEMS = [
    Graded("easy", (1.0, 0.5, 1.0, 0.0)),
    Graded("easy", (0.25, 0.5, 0.5, 0.75)),
    Graded("hard", (1.0, 0.0)),
    Graded("hard", ()),
]


def test_means_are_over_problems_and_k_stops_at_the_samples():
    rates = pass_rates([*PROBLEMS[:2], Graded("easy", (1.0, 1.0, 0.0, 0.0, 0.0))])
    assert rates.accuracy is not None and rates.strict_accuracy is not None
    assert rates.accuracy.mean == pytest.approx((0.625 + 0.5 + 0.4) / 3)
    assert rates.strict_accuracy.mean == pytest.approx((0.5 + 0 + 0.4) / 3)
    assert rates.pass_at[1].mean == pytest.approx(rates.strict_accuracy.mean)
    # of the problem with five samples alone: every choice of all five holds a right one
    assert list(rates.pass_at) == [1, 5]
    assert (rates.pass_at[5].mean, rates.pass_at[5].problems) == (1.0, 1)


def test_problems_without_a_graded_program_count_nowhere():
    rates = by_difficulty(PROBLEMS)
    assert list(rates) == ["all", "easy", "hard"]
    assert [each.accuracy.problems for each in rates.values() if each.accuracy] == [3, 2, 1]
    nothing = pass_rates([Graded("", ())])
    assert (nothing.accuracy, nothing.strict_accuracy, dict(nothing.pass_at)) == (None, None, {})
    assert list(by_difficulty([Graded("", (1.0,))])) == ["all"]

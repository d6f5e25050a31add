from __future__ import annotations

from collections import defaultdict

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dschat.data.splits import grouped_parts, parse_proportions, part_indices, permutation_parts
from dschat.data.stages import PPO, REWARD, SFT
from dschat.errors import UserError

proportions = st.lists(st.integers(0, 9), min_size=1, max_size=5).filter(any)


def published_parts(num_rows, weights, seed):
    """The published split, written as a plain loop."""
    total = float(sum(weights))
    boundaries = [0]
    for weight in weights:
        boundaries.append(boundaries[-1] + round(weight / total * float(num_rows)))
    surplus = boundaries[-1] - num_rows
    boundaries = [0] + [boundary - surplus for boundary in boundaries[1:]]
    order = np.arange(num_rows, dtype=np.uint32)
    np.random.RandomState(seed).shuffle(order)
    return [order[boundaries[i] : boundaries[i + 1]].tolist() for i in range(len(weights))]


def test_tldr_split_has_the_published_sizes_and_rows():
    parts = permutation_parts(92_858, (2, 4, 4), 1234)
    assert [len(part) for part in parts] == [18_572, 37_143, 37_143]
    assert [part.tolist() for part in parts] == published_parts(92_858, (2, 4, 4), 1234)


@pytest.mark.parametrize("num_rows", [3, 47, 123, 1_001])
@pytest.mark.parametrize("weights", [(2, 4, 4), (6, 2, 2), (1, 1, 1), (10, 0, 0), (9, 1), (95, 5)])
def test_split_equals_the_published_loop(num_rows, weights):
    parts = permutation_parts(num_rows, weights, 7)
    assert [part.tolist() for part in parts] == published_parts(num_rows, weights, 7)


@given(st.integers(0, 200), proportions, st.integers(0, 2**31))
@example(5, [0, 5, 5], 0)  # rounding loses a row, and part 0 must not get it
@example(3, [1, 1, 1, 1, 1], 0)  # rounding adds two rows, and part 1 would begin before 0
@settings(deadline=None, max_examples=150)
def test_parts_are_a_partition_and_a_zero_proportion_is_empty(num_rows, weights, seed):
    parts = permutation_parts(num_rows, weights, seed)
    assert len(parts) == len(weights)
    assert sorted(np.concatenate(parts).tolist()) == list(range(num_rows))
    assert all(len(part) == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)
    again = permutation_parts(num_rows, weights, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


@given(st.lists(st.integers(0, 12), max_size=120), proportions, st.integers(0, 2**31))
@settings(deadline=None, max_examples=150)
def test_grouped_parts_are_a_partition_that_tears_no_group(numbers, weights, seed):
    groups = [f"post {number}" for number in numbers]
    parts = grouped_parts(groups, weights, seed)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(groups)))
    assert all(len(part) == 0 for part, weight in zip(parts, weights, strict=True) if weight == 0)
    homes = defaultdict(set)
    for index, part in enumerate(parts):
        for row in part:
            homes[groups[row]].add(index)
    assert all(len(home) == 1 for home in homes.values())
    again = grouped_parts(groups, weights, seed)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_grouped_parts_keep_to_the_proportions_within_one_group():
    groups = [f"post {row // 3}" for row in range(3_000)]
    sizes = [len(part) for part in grouped_parts(groups, (2, 4, 4), 1234)]
    assert np.abs(np.array(sizes) - [600, 1_200, 1_200]).max() <= 3


def test_another_seed_gives_other_parts():
    first, second = (permutation_parts(100, (2, 4, 4), seed)[0].tolist() for seed in (1, 2))
    assert sorted(first) != sorted(second)


def test_each_step_gets_its_own_part():
    parts = [part_indices(50, stage.part, data_split="2,4,4", seed=3).tolist() for stage in (SFT, REWARD, PPO)]
    assert parts == published_parts(50, (2, 4, 4), 3)


def test_group_split_of_a_step_uses_the_groups():
    groups = ["a", "b"] * 10
    rows = part_indices(20, 0, data_split="1,1,0", seed=0, split_by="group", groups=groups)
    assert {groups[row] for row in rows} in ({"a"}, {"b"})
    assert len(rows) == 10


@pytest.mark.parametrize(
    ("text", "part", "words"),
    [
        ("2;4;4", None, "numbers separated by commas"),
        ("", None, "numbers separated by commas"),
        ("2,-4,4", None, "at least 0"),
        ("2,nan,4", None, "finite"),
        ("2,inf,4", None, "finite"),
        ("1e308,1e308", None, "finite"),
        ("0,0,0", None, "above 0"),
        ("5,5", 2, "this is step 3"),
        ("5", 1, "this is step 2"),
    ],
)
def test_bad_split_says_what_to_write(text, part, words):
    with pytest.raises(UserError, match=words) as caught:
        parse_proportions(text, part=part)
    assert text in str(caught.value)
    assert "2,4,4" in str(caught.value)


def test_two_parts_are_enough_for_step_two():
    assert parse_proportions("5, 2.5", part=1) == (5.0, 2.5)

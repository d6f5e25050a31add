from __future__ import annotations

from itertools import chain

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from dschat.data.order import epoch_order, rank_rows, steps_per_epoch, wrapped_rows


def test_epoch_order_depends_on_seed_and_epoch_alone():
    orders = [epoch_order(31, seed=seed, epoch=epoch).tolist() for seed, epoch in ((1, 0), (1, 1), (2, 0), (1, 0))]
    assert all(sorted(order) == list(range(31)) for order in orders)
    assert orders[0] == orders[3]
    assert orders[0] != orders[1] and orders[0] != orders[2]


@given(st.integers(0, 60), st.integers(1, 17), st.integers(1, 6))
@settings(deadline=None, max_examples=100)
def test_ranks_together_take_each_global_batch_in_order(num_rows, global_batch, world):
    order = epoch_order(num_rows, seed=3, epoch=1)
    taken = []
    for step in range(-(-num_rows // global_batch)):
        slices = [
            rank_rows(order, step=step, global_batch=global_batch, rank=rank, world=world) for rank in range(world)
        ]
        together = list(chain.from_iterable(slices))
        assert together == order[step * global_batch : (step + 1) * global_batch].tolist()
        assert max(map(len, slices)) - min(map(len, slices)) <= 1
        taken += together
    assert taken == order.tolist()


def test_short_last_batch_leaves_a_rank_without_rows():
    order = np.arange(9)
    last = [rank_rows(order, step=2, global_batch=4, rank=rank, world=4) for rank in range(4)]
    assert sorted(map(len, last)) == [0, 0, 0, 1]
    assert list(chain.from_iterable(last)) == [8]


@given(st.integers(1, 60), st.integers(1, 7), st.integers(1, 4))
@settings(deadline=None, max_examples=100)
def test_wrapped_batches_are_whole_and_do_not_depend_on_the_number_of_ranks(num_rows, per_rank, world):
    order = epoch_order(num_rows, seed=3, epoch=1)
    whole = per_rank * world
    for step in range(steps_per_epoch(num_rows, whole)):
        ranks = [wrapped_rows(order, step=step, global_batch=whole, rank=rank, world=world) for rank in range(world)]
        assert {len(rows) for rows in ranks} == {per_rank}
        assert list(chain.from_iterable(ranks)) == np.resize(order, (step + 1) * whole)[step * whole :].tolist()


def test_the_last_step_of_an_epoch_may_be_short():
    assert [steps_per_epoch(rows, 4) for rows in (1, 4, 5, 8)] == [1, 1, 2, 2]

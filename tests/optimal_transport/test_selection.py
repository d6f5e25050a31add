"""The one pass over the vocabulary against torch.topk and torch.logsumexp."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dschat.optimal_transport.selection import largest_and_last, largest_columns, top_tokens


@given(columns=st.integers(1, 3000), rows=st.integers(1, 5), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_largest_columns_are_those_of_a_full_top_k(columns: int, rows: int, share: float, seed: int) -> None:
    count = max(1, min(columns, round(columns * share**3)))
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    found = largest_columns(values, count)
    assert found.shape == (rows, count)
    assert torch.equal(found.sort(-1).values, values.topk(count).indices.sort(-1).values)


@given(columns=st.integers(1, 3000), rows=st.integers(1, 5), share=st.floats(0.0, 1.0), seed=st.integers(0, 2**16))
@settings(max_examples=60, deadline=None)
def test_largest_and_last_are_the_ends_of_a_full_top_k(columns: int, rows: int, share: float, seed: int) -> None:
    count = max(1, min(columns, round(columns * share**3)))
    values = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    ordered = values.topk(count).indices
    largest, last = largest_and_last(values, count)
    assert torch.equal(largest, ordered[:, 0])
    assert torch.equal(last, ordered[:, -1])


@pytest.mark.parametrize("levels", [2, 4, 400])
def test_largest_and_last_have_the_right_values_among_ties(levels: int) -> None:
    values = torch.randint(0, levels, (7, 4099), generator=torch.Generator().manual_seed(0)).float()
    values[3] = -torch.inf
    largest, last = largest_and_last(values, 17)
    expected = values.topk(17).values
    assert torch.equal(values.gather(1, largest[:, None])[:, 0], expected[:, 0])
    assert torch.equal(values.gather(1, last[:, None])[:, 0], expected[:, -1])


def test_ties_never_displace_a_larger_entry_or_repeat_a_column() -> None:
    values = torch.randint(0, 4, (7, 4099), generator=torch.Generator().manual_seed(0)).float()
    found = largest_columns(values, 17)
    assert torch.equal(values.gather(1, found).sort(-1).values, values.topk(17).values.sort(-1).values)
    assert all(len(row.unique()) == 17 for row in found)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("padding", [0, 5])
def test_top_tokens_equal_topk_and_logsumexp(dtype: torch.dtype, padding: int) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (3 * torch.randn(23, 8191 + padding, generator=generator)).to(dtype)[:, :8191]
    assert logits.is_contiguous() == (padding == 0)
    found = top_tokens(logits, 19)
    wide = logits.double()
    expected = wide.topk(19).values.sort(-1).values
    assert torch.equal(wide.gather(1, found.ids).sort(-1).values, expected)
    torch.testing.assert_close(found.log_normalizer, wide.logsumexp(-1), atol=1e-6, rtol=0)
    assert found.is_finite.all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_rows_with_nan_or_inf_are_marked(bad: float) -> None:
    logits = torch.randn(9, 1031, generator=torch.Generator().manual_seed(2))
    logits[4, 700] = bad
    expected = torch.ones(9, dtype=torch.bool)
    expected[4] = False
    assert torch.equal(top_tokens(logits, 3).is_finite, expected)

"""What became of a step's rows, in words."""

from __future__ import annotations

from collections import Counter

import pytest

from dschat.data.report import DataReport, RowCounts, check_kept
from dschat.data.stages import PPO, SFT
from dschat.errors import UserError


def test_summary_says_how_many_rows_are_used_and_why_others_are_not() -> None:
    train = RowCounts(rows=10, kept=6, empty_prompts=1, too_long=3, shortened_prompts=2, longest_prompt=1234)
    text = DataReport(SFT, 64, train, RowCounts(rows=2, kept=2)).summary()
    assert text == (
        "Data for sft: 6 of 10 training rows are used (left out: 1 without a prompt, 3 too long to shorten); 2 of 2 "
        "evaluation rows are used. Prompts cut at the front to fit 64 tokens with their responses: 2 and 0, the "
        "longest had 1,234 tokens."
    )


def test_prompts_that_all_have_to_be_cut_are_a_mistake_of_the_limit() -> None:
    whole = Counter(rows=3, kept=3, shortened_prompts=3, longest_prompt=99)
    with pytest.raises(UserError, match="0 of 3 prompts fit --max_prompt_seq_len 8; the longest has 99 tokens"):
        check_kept(whole, whole, PPO, max_length=8, split="1,1,1", labels="mine")

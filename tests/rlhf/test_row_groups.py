"""Rows put together by length: every row once, no group too large, and no result changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dschat.rlhf import row_groups, scoring
from dschat.rlhf.experience import Experience, real_columns
from dschat.rlhf.reward_sources import learned_model
from dschat.rlhf.row_groups import RowGroup, group_rows
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times


def make_mask(seed: int, rows: int, prompt: int, response: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    prompts = torch.randint(1, prompt + 1, (rows, 1), generator=generator)
    responses = torch.randint(1, response + 1, (rows, 1), generator=generator)
    left = torch.arange(prompt)[None] >= prompt - prompts
    right = torch.arange(response)[None] < responses
    return torch.cat([left, right], dim=-1).long()


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 13), st.integers(1, 9), st.integers(1, 7), st.integers(1, 60), st.integers(1, 30), st.integers())
def test_every_row_once_all_its_tokens_and_no_group_too_large(
    rows: int, prompt: int, response: int, max_tokens: int, max_positions: int, seed: int
) -> None:
    mask = make_mask(seed % 10_000, rows, prompt, response)
    groups = group_rows(mask, width=response, max_tokens=max_tokens, max_positions=max_positions)
    assert sorted(row for group in groups for row in group.rows.tolist()) == list(range(rows))
    for group in groups:
        kept = mask[group.rows, group.columns]
        assert kept.sum() == mask[group.rows].sum()
        assert kept[:, 0].any()
        assert kept[:, -1].any()
        assert group.width == kept.shape[1] - (prompt - group.columns.start)
        if len(group.rows) > 1:
            assert kept.numel() <= max_tokens
            assert len(group.rows) * group.width <= max_positions


def test_rows_of_similar_length_share_a_group() -> None:
    lengths = [9, 1, 8, 2, 9, 1]
    mask = (torch.arange(9)[None] >= 9 - torch.tensor(lengths)[:, None]).long()
    mask = torch.cat([mask, torch.ones(6, 1, dtype=torch.long)], dim=-1)
    groups = group_rows(mask, width=1, max_tokens=30)
    assert [sorted(group.rows.tolist()) for group in groups] == [[1, 3, 5], [0, 2, 4]]
    assert [group.columns for group in groups] == [slice(7, 10), slice(0, 10)]
    assert sum(mask[g.rows, g.columns].numel() for g in groups) < mask.numel()


@pytest.mark.parametrize("wanted", [1, 4, 5, 7])
def test_a_rank_runs_as_many_forwards_as_the_one_with_the_longest_rows(
    wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # what another rank of the same number of rows needs
    monkeypatch.setattr(row_groups, "reduce_max", lambda local: torch.maximum(local, torch.tensor(wanted)))
    mask = make_mask(3, rows=7, prompt=5, response=4)
    groups = group_rows(mask, width=4, max_tokens=20)
    alone = len(row_groups_alone(mask, monkeypatch))
    assert len(groups) == max(wanted, alone)
    assert sorted(row for group in groups for row in group.rows.tolist()) == list(range(7))


def row_groups_alone(mask: Tensor, monkeypatch: pytest.MonkeyPatch) -> list[RowGroup]:
    monkeypatch.setattr(row_groups, "reduce_max", lambda local: local)
    return group_rows(mask, width=4, max_tokens=20)


def test_rows_without_any_token_keep_one_column_of_prompt_and_response() -> None:
    assert real_columns(torch.zeros(2, 7, dtype=torch.long), width=3) == (slice(3, 5), 1)
    only_prompt = torch.tensor([[0, 1, 1, 0, 0]])
    assert real_columns(only_prompt, width=2) == (slice(1, 4), 1)


def one_group(attention_mask: Tensor, *, width: int, **_: Any) -> list[RowGroup]:
    """All rows with all their padding."""
    return [RowGroup(torch.arange(len(attention_mask)), slice(0, attention_mask.shape[1]), width)]


@pytest.mark.parametrize(("max_tokens", "passes"), [(1, 8), (10_000, 1)])
def test_micro_batches_by_tokens_change_nothing_but_their_number(
    max_tokens: int, passes: int, tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_folders(tmp_path)
    micro_batches: list[int] = []
    trimmed = Experience.trimmed

    def counted(self: Experience) -> Experience:
        micro_batches.append(len(self))
        return trimmed(self)

    monkeypatch.setattr(Experience, "trimmed", counted)

    def train(name: str, flags: str) -> list[dict[str, Any]]:
        micro_batches.clear()
        rows = "--per_device_generation_batch_size 4 --per_device_training_batch_size 4 --gradient_accumulation_steps 2"
        words = f"{rows} --ppo_epochs 2 --max_steps 3 {flags}"
        return without_times(run_job(Job("ppo", ppo_arguments(paths, tmp_path / name, words))))

    by_rows = train("rows", "")
    assert micro_batches == [4] * 12
    by_tokens = train("tokens", f"--max_tokens_per_micro_batch {max_tokens}")
    assert micro_batches == [8 // passes] * passes * 6
    for tolerance, ours, theirs in zip((1e-6, 1e-5, 1e-5), by_tokens, by_rows, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize(
    ("step", "flags"), [("ppo", "--f_div rkl"), ("ppo", "--f_div js"), ("wpr", "--top_k 8 --cost_dim 16")]
)
def test_groups_and_trimming_change_no_metric(
    step: str, flags: str, tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_folders(tmp_path)
    batches = "--per_device_training_batch_size 2 --gradient_accumulation_steps 4 --max_steps 3"

    def train(name: str) -> list[dict[str, Any]]:
        return without_times(run_job(Job(step, ppo_arguments(paths, tmp_path / name, f"{batches} {flags}"))))

    monkeypatch.setitem(row_groups.MAX_TOKENS, "cpu", 64)
    grouped = train("grouped")
    for module in (scoring, learned_model):
        monkeypatch.setattr(module, "group_rows", one_group)
    monkeypatch.setattr(Experience, "trimmed", lambda self: self)
    whole = train("whole")
    # updates carry rounding on from step to step
    for tolerance, ours, theirs in zip((1e-6, 1e-5, 1e-5), grouped, whole, strict=True):
        assert ours == pytest.approx(theirs, rel=tolerance, abs=tolerance)

"""Experience of several rollouts put together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dschat.rlhf.experience import Experience, concatenate


def make_experience(rows: int, prompt: int, response: int, seed: int) -> Experience:
    generator = torch.Generator().manual_seed(seed)

    def table() -> Tensor:
        return torch.randn(rows, response, generator=generator)

    lengths = torch.randint(0, response + 1, (rows, 1), generator=generator)
    mask = torch.arange(response)[None] < lengths
    return Experience(
        sequences=torch.randint(1, 40, (rows, prompt + response), generator=generator),
        attention_mask=torch.cat([torch.ones(rows, prompt, dtype=torch.long), mask.long()], dim=-1),
        response_mask=mask, log_probs=table(), score=torch.randn(rows, generator=generator), penalty=table(),
        values=table(), advantages=table(), returns=table(),
    )  # fmt: skip


def test_concatenation_pads_prompts_left_and_answers_right() -> None:
    first, second = make_experience(2, 5, 3, 0), make_experience(3, 2, 7, 1)
    both = concatenate([first, second], pad_token_id=99)
    assert both.sequences.shape == (5, 12)
    assert both.response_mask.shape == (5, 7)
    assert torch.equal(both.sequences[:2, :8], first.sequences)
    assert (both.sequences[:2, 8:] == 99).all()
    assert torch.equal(both.sequences[2:, 3:], second.sequences)
    assert (both.sequences[2:, :3] == 99).all()
    assert both.attention_mask[2:, :3].sum() == 0
    assert both.response_mask[:2, 3:].sum() == 0
    assert torch.equal(both.advantages[:2, :3], first.advantages)
    assert torch.equal(both.returns[2:], second.returns)
    assert torch.equal(both.score, torch.cat([first.score, second.score]))


def test_rows_are_selected_together() -> None:
    experience = make_experience(4, 2, 3, 0)
    part = experience.rows(torch.tensor([3, 1]))
    assert len(part) == 2
    assert torch.equal(part.values, experience.values[[3, 1]])
    assert torch.equal(part.sequences, experience.sequences[[3, 1]])


def test_trimming_drops_the_columns_in_which_every_row_has_padding() -> None:
    experience = make_experience(3, 4, 6, 5)
    lengths = [2, 4, 1]
    mask = torch.arange(6)[None] < torch.tensor(lengths)[:, None]
    prompt = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [0, 0, 0, 1]])
    padded = replace(experience, response_mask=mask, attention_mask=torch.cat([prompt, mask.long()], dim=-1))
    trimmed = padded.trimmed()
    assert trimmed.sequences.tolist() == padded.sequences[:, 1:8].tolist()
    assert trimmed.attention_mask.tolist() == padded.attention_mask[:, 1:8].tolist()
    for name in ("response_mask", "log_probs", "penalty", "values", "advantages", "returns"):
        assert torch.equal(getattr(trimmed, name), getattr(padded, name)[:, :4])
    assert torch.equal(trimmed.score, padded.score)

"""Rows of unequal length, put together so that forwards compute little padding.

B rows, P prompt width (left-padded), R response width (right-padded). Groups change no result: a row's numbers do not
depend on its neighbours or on padding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.rlhf.experience import real_columns
from dschat.runtime.distributed import reduce_max

MAX_TOKENS = {"cpu": 2**11, "cuda": 2**14}
"""Tokens of a forward without gradients that keep a device busy; more only add padding and memory."""


@dataclass(frozen=True)
class RowGroup:
    """Rows that share a forward, and the columns that any of them needs."""

    rows: Tensor
    """[b] int64, their numbers."""
    columns: slice
    """From the first real token of any of them to the last, and at least one response column."""
    width: int
    """Response columns among these."""


def group_rows(
    attention_mask: Tensor, *, width: int, max_positions: int | None = None, max_tokens: int | None = None
) -> list[RowGroup]:
    """Rows of similar length together, as many as a forward may hold; equally many groups on every rank.

    Args:
        attention_mask: [B, P + R], 1 on real tokens; B is the same on every rank.
        width: R.
        max_positions: response columns times rows of a group, padding included; a single row may have more. None for
            no bound.
        max_tokens: columns times rows; likewise; None for MAX_TOKENS of the device.
    Returns:
        groups in which every row occurs once; all ranks call this together.
    """
    max_tokens = MAX_TOKENS.get(attention_mask.device.type, MAX_TOKENS["cuda"]) if max_tokens is None else max_tokens
    max_positions = max_tokens if max_positions is None else max_positions  # responses alone cannot have more
    prompts = attention_mask[:, :-width].sum(dim=-1).tolist()
    responses = attention_mask[:, -width:].sum(dim=-1).tolist()
    order = sorted(range(len(prompts)), key=lambda row: (prompts[row] + responses[row], row))
    groups: list[list[int]] = []
    longest_prompt = longest_response = 0
    for row in order:
        prompt, response = max(longest_prompt, prompts[row]), max(longest_response, responses[row])
        size = len(groups[-1]) + 1 if groups else 1
        if groups and size * (prompt + response) <= max_tokens and size * response <= max_positions:
            groups[-1].append(row)
        else:
            groups.append([row])
            prompt, response = prompts[row], responses[row]
        longest_prompt, longest_response = prompt, response
    # under ZeRO-3 a forward is collective
    wanted = int(reduce_max(torch.tensor(len(groups), device=attention_mask.device)).item())
    while len(groups) < wanted:
        largest = max(groups, key=len)
        at = groups.index(largest)
        groups[at : at + 1] = [largest[: len(largest) // 2], largest[len(largest) // 2 :]]
    return [_group(rows, attention_mask, width) for rows in groups]


def _group(rows: list[int], attention_mask: Tensor, width: int) -> RowGroup:
    index = torch.tensor(rows, device=attention_mask.device)
    columns, kept = real_columns(attention_mask[index], width=width)
    return RowGroup(index, columns, kept)

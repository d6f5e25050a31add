"""Where answers end, and which rows take part."""

from __future__ import annotations

import pytest
import torch

from dschat.data.batches import PromptBatch
from dschat.rlhf.rollout import AnswerTokens, answer_mask, make_rollout
from toys.tokenizers import make_tokenizer

EOS, OTHER_STOP = 2, 3


def loop_mask(row: list[int], stop: set[int]) -> list[bool]:
    """True up to and including the first stop token."""
    mask, open_ = [], True
    for token in row:
        mask.append(open_)
        open_ = open_ and token not in stop
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_mask_equals_the_loop(seed: int) -> None:
    responses = torch.randint(0, 6, (7, 11), generator=torch.Generator().manual_seed(seed))
    mask, ended = answer_mask(responses, (EOS, OTHER_STOP))
    assert mask.tolist() == [loop_mask(row, {EOS, OTHER_STOP}) for row in responses.tolist()]
    assert ended.tolist() == [bool({EOS, OTHER_STOP} & set(row)) for row in responses.tolist()]


@pytest.mark.parametrize("pad", [0, EOS])
def test_rows_that_only_end_are_unusable_and_stay_in_place(pad: int) -> None:
    tokenizer = make_tokenizer(pad="pad" if pad == 0 else "eos")
    prompts = PromptBatch(
        input_ids=torch.tensor([[pad, 5, 6], [7, 8, 9], [pad, pad, 4]]),
        attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]]),
        records=({"id": 0}, {"id": 1}, {"id": 2}),
    )
    answers = torch.tensor([[EOS, pad, pad, pad], [10, 11, EOS, pad], [10, 11, 12, 13]])
    tokens = AnswerTokens(stop=(EOS,), pad=pad, vocab_size=len(tokenizer))
    rollout = make_rollout(torch.cat([prompts.input_ids, answers], dim=-1), prompts, tokens, tokenizer)
    assert rollout.usable.tolist() == [False, True, True]
    assert rollout.response_mask.int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert rollout.attention_mask[:, 3:].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert rollout.ended.tolist() == [True, True, False]
    assert torch.equal(rollout.responses, answers)
    assert rollout.records == prompts.records
    assert rollout.prompts[1] == tokenizer.decode([7, 8, 9])
    assert rollout.answers[2] == tokenizer.decode([10, 11, 12, 13])
    assert rollout.answers[0] == ""


def test_a_sampled_padding_token_inside_an_answer_is_a_token() -> None:
    mask, _ = answer_mask(torch.tensor([[5, 0, 6, EOS, 0]]), (EOS,))
    assert mask.tolist() == [[True, True, True, True, False]]

"""Which rows of a rollout take part."""

from __future__ import annotations

import pytest
import torch

from dschat.data.batches import PromptBatch
from dschat.generation import Answers
from dschat.rlhf.rollout import make_rollout
from toys.tokenizers import make_tokenizer

EOS = 2


@pytest.mark.parametrize("pad", [0, EOS])
def test_rows_that_only_end_are_unusable_and_stay_in_place(pad: int) -> None:
    tokenizer = make_tokenizer(pad="pad" if pad == 0 else "eos")
    prompts = PromptBatch(
        input_ids=torch.tensor([[pad, 5, 6], [7, 8, 9], [pad, pad, 4]]),
        attention_mask=torch.tensor([[0, 1, 1], [1, 1, 1], [0, 0, 1]]),
        records=({"id": 0}, {"id": 1}, {"id": 2}),
    )
    answers = torch.tensor([[EOS, pad, pad, pad], [10, 11, EOS, pad], [10, 11, 12, 13]])
    rollout = make_rollout(Answers.from_tokens(answers, (EOS,)), prompts, tokenizer)
    assert rollout.usable.tolist() == [False, True, True]
    assert rollout.response_mask.int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert rollout.attention_mask[:, 3:].tolist() == [[1, 0, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert rollout.ended.tolist() == [True, True, False]
    assert torch.equal(rollout.responses, answers)
    assert rollout.records == prompts.records
    assert rollout.prompts[1] == tokenizer.decode([7, 8, 9])
    assert rollout.answers[2] == tokenizer.decode([10, 11, 12, 13])
    assert rollout.answers[0] == ""

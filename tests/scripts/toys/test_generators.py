"""Generators whose answers the prompts alone decide."""

from __future__ import annotations

import torch
from torch import Tensor

from dschat.data.batches import PromptBatch
from dschat.generation import Sampling
from toys.generators import FixedAnswers
from toys.tokenizers import make_tokenizer

SAMPLING = Sampling(temperature=1.0, top_k=0, top_p=1.0, max_new_tokens=4)
END = int(make_tokenizer().eos_token_id)


def answer(prompts: PromptBatch) -> Tensor:
    """The prompt's first two tokens, then the end, then one token more."""
    first = prompts.input_ids[:, :2]
    return torch.cat([first, torch.tensor([[END, 9]]).expand(len(first), -1)], dim=-1)


def test_answers_end_where_the_end_token_is() -> None:
    ids = torch.tensor([[5, 6, 7], [8, 9, 10]])
    batch = PromptBatch(input_ids=ids, attention_mask=torch.ones_like(ids), records=({}, {}))
    generator = FixedAnswers(answer)
    found = generator.generate(batch, SAMPLING)
    again = FixedAnswers(answer, stop=[9]).generate(batch, SAMPLING)
    assert torch.equal(found.tokens, answer(batch))
    assert found.lengths.tolist() == [3, 3]
    assert again.lengths.tolist() == [4, 2]
    generator.refresh()
    assert generator.refreshed == 1

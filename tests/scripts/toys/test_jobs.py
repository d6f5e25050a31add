"""Toy runs: the same data every time, and answers that depend on a row alone."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from dschat.data.batches import PromptBatch
from toys.jobs import ANSWER_TOKENS, WORDS, answer_by_prompt, answer_first_half, without_times, write_pairs, write_text
from toys.tokenizers import make_tokenizer

END = make_tokenizer().eos_token_id


def prompts(rows: int) -> PromptBatch:
    ids = torch.randint(5, 40, (rows, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[0, :2] = 0
    return PromptBatch(input_ids=ids, attention_mask=mask, records=tuple({} for _ in range(rows)))


def test_files_are_the_same_for_a_seed(tmp_path: Path) -> None:
    seeds = {"a": 1, "b": 1, "c": 2}
    texts = [write_pairs(tmp_path / f"{name}.jsonl", rows=5, seed=seed).read_text() for name, seed in seeds.items()]
    assert texts[0] == texts[1] != texts[2]
    for line in texts[0].splitlines():
        assert {*" ".join(json.loads(line).values()).split()} <= {*WORDS}
    assert write_text(tmp_path, paragraphs=3).read_text().count("\n\n") == 2


def test_an_answer_depends_on_its_own_prompt_and_not_on_padding() -> None:
    batch = prompts(7)
    whole = answer_by_prompt(batch)
    assert whole.shape == (7, ANSWER_TOKENS)
    padded = PromptBatch(batch.input_ids[:1, 2:], batch.attention_mask[:1, 2:], ({},))
    assert torch.equal(answer_by_prompt(padded)[0], whole[0])


def test_the_second_half_says_nothing() -> None:
    answers = answer_first_half(prompts(6))
    assert (answers[3:] == END).all()
    assert torch.equal(answers[:3], answer_by_prompt(prompts(6))[:3])


def test_times_and_rates_are_left_out() -> None:
    line = {"loss": 1.0, "step_seconds": 2.0, "tokens_per_second": 3.0}
    assert without_times([line]) == [{"loss": 1.0}]

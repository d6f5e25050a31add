"""Tiny tokenizers: real ones, whose texts come back."""

from __future__ import annotations

import pytest

from toys.tokenizers import make_tokenizer


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("pad", ["pad", "eos"])
def test_texts_come_back_and_special_tokens_are_as_asked_for(pad: str, bos: bool) -> None:
    tokenizer = make_tokenizer(pad=pad, bos=bos)
    text = "Read two numbers, ü and 日本, and print their sum.\n"
    ids = tokenizer(text).input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert (tokenizer.bos_token_id is not None and ids[0] == tokenizer.bos_token_id) == bos
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) == (pad == "eos")
    assert 260 <= len(tokenizer) <= 300


def test_a_larger_vocabulary_needs_fewer_tokens() -> None:
    text = "The function returns the number of items in the list."
    assert len(make_tokenizer(vocab_size=350)(text).input_ids) < len(make_tokenizer(vocab_size=262)(text).input_ids)

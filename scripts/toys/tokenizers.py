"""Tiny byte-level BPE tokenizers for tests: real, trained here, nothing downloaded."""

from __future__ import annotations

import json
from functools import cache
from typing import Literal

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

_CORPUS = [
    "POST\nSubreddit: r/python\nThe function returns the number of items in the list.\nTL;DR: Return the number.",
    " Human: What is the sum of the values? Assistant: The sum is the total of all the values.",
    "### Problem:\nRead two numbers and print their sum.\n\n### Response:\nprint(sum(map(int, input().split())))",
] * 4
_SPECIALS = ["<unk>", "<pad>", "<bos>", "<eos>"]


@cache
def _trained(vocab_size: int) -> str:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=_SPECIALS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer.to_str()


def make_tokenizer(
    pad: Literal["pad", "eos"] = "pad", bos: bool = True, vocab_size: int = 300
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of about `vocab_size` tokens (at least 260, the bytes and the special tokens).

    Args:
        pad: whether padding is a token of its own or the end-of-sequence token.
        bos: whether a beginning-of-sequence token is put before every text.
    """
    backend = Tokenizer.from_str(_trained(vocab_size))
    if bos:
        backend.post_processor = processors.TemplateProcessing(
            single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", backend.token_to_id("<bos>"))]
        )
    return _wrapped(backend, pad=pad, bos=bos)


def make_tokenizer_with_gaps(*, eos: int) -> PreTrainedTokenizerFast:
    """The same, of 300 tokens, but its EOS has a higher id and the one that it had belongs to no token."""
    content = json.loads(make_tokenizer().backend_tokenizer.to_str())
    content["model"]["vocab"]["<eos>"] = eos
    for token in content["added_tokens"]:
        if token["content"] == "<eos>":
            token["id"] = eos
    return _wrapped(Tokenizer.from_str(json.dumps(content)), pad="pad", bos=True)


def _wrapped(backend: Tokenizer, *, pad: str, bos: bool) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<bos>" if bos else None,
        eos_token="<eos>",
        pad_token="<pad>" if pad == "pad" else "<eos>",
    )


def make_word_tokenizer(num_tokens: int) -> PreTrainedTokenizerFast:
    """Words w0, w1, ... of which w0 is padding and w1 the end."""
    backend = Tokenizer(models.WordLevel({f"w{index}": index for index in range(num_tokens)}, unk_token="w0"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="w0", eos_token="w1")

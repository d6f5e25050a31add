"""The tokens that end an assistant's turn: what a chat template writes behind an answer."""

from __future__ import annotations

import logging

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

CONTENT = "an-answer-that-no-template-holds"
WELL_KNOWN = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|eot|>", "<|end|>", "<turn|>", "<|END_OF_TURN_TOKEN|>")
"""Tokens that end a turn: of ChatML, Gemma 2 and 3, Llama 3, Llama 4, Phi 3, Gemma 4, Command R."""


def template_end(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The id of the special token with which the chat template ends an assistant's turn.

    None where there is no template, it ends turns with plain text, or it cannot be used for a question and an answer.
    """
    if not tokenizer.chat_template:
        return None
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": CONTENT}]
    try:
        text = str(tokenizer.apply_chat_template(turns, tokenize=False))
    except (TemplateError, TypeError, ValueError) as error:
        logger.warning("the chat template cannot render a question and an answer: %s", error)
        return None
    _, found, behind = text.rpartition(CONTENT)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    ids = tokenizer(behind, add_special_tokens=False).input_ids if found else []
    return next((token for token in ids if token in special), None)


def well_known_ends(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The ids of those special tokens that are known to end turns, for a tokenizer without a template."""
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    vocabulary = tokenizer.get_vocab()
    return [vocabulary[text] for text in WELL_KNOWN if text in vocabulary and vocabulary[text] in special]

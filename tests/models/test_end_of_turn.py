"""The token that ends an assistant's turn, as a chat template writes it."""

from __future__ import annotations

import logging

import pytest

from dschat.models.end_of_turn import template_end, well_known_ends
from tests.tools.gguf_files import TEMPLATE, make_chat_tokenizer


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        (None, None),
        (TEMPLATE, "<turn_end>"),
        (TEMPLATE.replace("<turn_end>", "{{ eos_token }}"), "<eos>"),
        (TEMPLATE.replace("<turn_end>", " <turn_end><eos>"), "<turn_end>"),
        (TEMPLATE.replace("<turn_end>", " end of the turn"), None),
        ("{% for turn in messages %}{{ turn['role'] }}{% endfor %}<turn_end>", None),
        ("{% if messages|length > 1 %}{{ raise_exception('one question only') }}{% endif %}", None),
    ],
)
def test_it_is_the_first_special_token_behind_the_answer(template: str | None, expected: str | None) -> None:
    tokenizer = make_chat_tokenizer("<turn_end>", template=template)
    assert template_end(tokenizer) == (None if expected is None else tokenizer.convert_tokens_to_ids(expected))


def test_a_template_that_cannot_be_used_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="dschat"):
        template_end(make_chat_tokenizer(template="{{ raise_exception('no answers') }}"))
    assert "cannot render a question and an answer: no answers" in caplog.text


def test_well_known_tokens_are_found_among_the_special_ones() -> None:
    assert well_known_ends(make_chat_tokenizer("<turn_end>")) == []
    tokenizer = make_chat_tokenizer("<|eot_id|>", "<end_of_turn>")
    assert set(well_known_ends(tokenizer)) == {300, 301}
    tokenizer = make_chat_tokenizer()
    tokenizer.add_tokens(["<|im_end|>"])
    assert well_known_ends(tokenizer) == [300], "an added token is matched as a whole, special or not"

"""Conversations as token ids: one BOS, what is trained, where turns end, and how long ones are shortened."""

from __future__ import annotations

from typing import Any

import pytest

from dschat.models import end_of_turn
from dschat.models.chat_template import ChatTemplate, Conversation, Unrenderable, checked_messages
from toys.templates import END_TOKENS, TEMPLATES, make_chat_tokenizer

USER, ASSISTANT = "user", "assistant"


def messages(*pairs: tuple[str, str]) -> tuple[dict[str, Any], ...]:
    return tuple({"role": role, "content": content} for role, content in pairs)


TWO_TURNS = messages((USER, "sum?"), (ASSISTANT, "the total"), (USER, "of what?"), (ASSISTANT, "all values"))


def template_of(family: str) -> ChatTemplate:
    tokenizer = make_chat_tokenizer(family)
    bos = tokenizer("a")["input_ids"][: -len(tokenizer("a", add_special_tokens=False)["input_ids"])]
    return ChatTemplate(tokenizer, tuple(bos))


# The trained part between ‹ and ›, written by hand; the rest is what stands around it.
EXPECTED = {
    "chatml": (
        "<|im_start|>user\nsum?<|im_end|>\n<|im_start|>assistant\n‹the total<|im_end|>›\n"
        "<|im_start|>user\nof what?<|im_end|>\n<|im_start|>assistant\n‹all values<|im_end|>›"
    ),
    "qwen": (
        "<|im_start|>system\nhelp<|im_end|>\n<|im_start|>user\nsum?<|im_end|>\n<|im_start|>assistant\n‹the total"
        "<|im_end|>›\n<|im_start|>user\nof what?<|im_end|>\n<|im_start|>assistant\n‹all values<|im_end|>›"
    ),
    "llama3": (
        "<bos><|start_header_id|>user<|end_header_id|>\n\nsum?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
        "‹the total<|eot_id|>›<|start_header_id|>user<|end_header_id|>\n\nof what?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n‹all values<|eot_id|>›"
    ),
    "gemma": (
        "<bos><start_of_turn>user\nsum?<end_of_turn>\n<start_of_turn>model\n‹the total<end_of_turn>›\n"
        "<start_of_turn>user\nof what?<end_of_turn>\n<start_of_turn>model\n‹all values<end_of_turn>›"
    ),
    "mistral": "<bos>[INST] sum? [/INST]‹ the total<eos>›[INST] of what? [/INST]‹ all values<eos>›",
    "marked": (
        "<bos><|im_start|>user\nsum?<|im_end|>\n<|im_start|>assistant\n‹the total<|im_end|>›\n"
        "<|im_start|>user\nof what?<|im_end|>\n<|im_start|>assistant\n‹all values<|im_end|>›"
    ),
    "plain": "<bos>user: sum?\nassistant: ‹the total\n›user: of what?\nassistant: ‹all values\n<eos>›",
}  # fmt: skip


def hand_made(family: str) -> tuple[list[int], list[bool]]:
    """Ids and what is trained, piece by piece of the text above."""
    tokenizer = make_chat_tokenizer(family)
    ids: list[int] = []
    trained: list[bool] = []
    for number, piece in enumerate(EXPECTED[family].replace("›", "‹").split("‹")):
        found = tokenizer(piece, add_special_tokens=False)["input_ids"]
        ids += found
        trained += [number % 2 == 1] * len(found)
    return ids, trained


@pytest.mark.parametrize("family", EXPECTED)
def test_every_turn_of_the_assistant_is_trained_with_its_end_and_nothing_else(family: str) -> None:
    rendered = template_of(family).rendered(Conversation(TWO_TURNS))
    ids, trained = hand_made(family)
    assert list(rendered.ids) == ids
    assert list(rendered.trained) == trained


@pytest.mark.parametrize("family", TEMPLATES)
def test_a_prompt_ends_where_the_answer_begins_and_has_one_bos(family: str) -> None:
    template = template_of(family)
    conversation = Conversation(TWO_TURNS[:3])
    prompt, answer = template.prompt_ids(conversation), template.answer_ids(conversation, TWO_TURNS[3:])
    bos = template.tokenizer.bos_token_id
    assert prompt.count(bos) == (1 if template.prefix else 0)
    if family in EXPECTED:
        assert prompt + answer == template.rendered(Conversation(TWO_TURNS)).ids
    end = template.tokenizer.eos_token_id if template.end_id is None else template.end_id
    assert answer[-1] == end and answer.count(end) == 1


@pytest.mark.parametrize("family", TEMPLATES)
def test_the_end_of_a_turn_is_found(family: str) -> None:
    template = template_of(family)
    token = END_TOKENS.get(family, "<|im_end|>")
    expected = None if token is None else template.tokenizer.convert_tokens_to_ids(token)
    assert template.end_id == end_of_turn.template_end(template.tokenizer) == expected


def test_a_system_message_and_tools_reach_the_template() -> None:
    template = template_of("llama3")
    tools = ({"name": "add", "parameters": {}},)
    conversation = Conversation(messages(("system", "short"), *((m["role"], m["content"]) for m in TWO_TURNS)), tools)
    text = template.tokenizer.decode(template.rendered(conversation).ids)
    assert text.startswith(
        '<bos><|start_header_id|>tools<|end_header_id|>\n\n[{"name": "add", "parameters": {}}]<|eot_id|>'
        "<|start_header_id|>system<|end_header_id|>\n\nshort<|eot_id|>"
    )


@pytest.mark.parametrize(
    ("family", "given", "reason"),
    [
        ("gemma", messages(("system", "s"), (USER, "u"), (ASSISTANT, "a")), "refuses it: System role not supported"),
        ("gemma", messages((USER, "u"), (USER, "u"), (ASSISTANT, "a")), "refuses it: roles must alternate"),
        ("chatml", messages((USER, "u")), "no message is the assistant's"),
        ("chatml", messages((ASSISTANT, "a")), "it begins with the assistant"),
        (
            "forgetful", messages((USER, "u"), (ASSISTANT, "x</think>a"), (USER, "v"), (ASSISTANT, "b")),
            "message 2 differently when it follows",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_says_why(family: str, given: tuple[dict[str, Any], ...], reason: str) -> None:
    with pytest.raises(Unrenderable, match=reason):
        template_of(family).rendered(Conversation(given))


def test_the_last_turn_of_a_forgetful_template_can_be_trained() -> None:
    template = template_of("forgetful")
    rendered = template.rendered(Conversation(messages((USER, "u"), (ASSISTANT, "x</think>a"))))
    trained = [token for token, counts in zip(rendered.ids, rendered.trained, strict=True) if counts]
    assert template.tokenizer.decode(trained) == "x</think>a<|im_end|>"


@pytest.mark.parametrize("family", ["chatml", "llama3", "gemma", "mistral"])
@pytest.mark.parametrize("room", [1000, 60, 40, 30, 24, 20, 12])
def test_shortening_keeps_the_frame_and_the_last_exchange(family: str, room: int) -> None:
    template = template_of(family)
    head = () if family in ("gemma", "mistral") else messages(("system", "be kind"))
    long = messages((USER, "first question of many words"), (ASSISTANT, "first answer"), (USER, "the second question"))
    conversation = Conversation(head + long)
    short = template.shortened(conversation, lambda version: len(template.prompt_ids(version)) <= room)
    if short is None:
        least = Conversation((*head, {"role": USER, "content": "n"}))
        assert len(template.prompt_ids(least)) >= room
        return
    assert len(template.prompt_ids(short)) <= room
    assert short.messages[: len(head)] == head
    assert short.messages[-1]["role"] == USER and long[-1]["content"].endswith(short.messages[-1]["content"])
    kept = short.messages[len(head) :]
    assert kept[0]["role"] == USER
    if room == 1000:
        assert short == conversation
    longer = len(template.prompt_ids(conversation)) > room
    assert longer == (short != conversation)


def test_no_more_than_needed_is_cut() -> None:
    template = template_of("chatml")
    conversation = Conversation(messages((USER, "one two three four five six seven")))
    whole = len(template.prompt_ids(conversation))
    for room in range(whole - 8, whole):
        short = template.shortened(conversation, lambda version, room=room: len(template.prompt_ids(version)) <= room)
        assert short is not None and room - 2 <= len(template.prompt_ids(short)) <= room


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "there are no messages"),
        ("hello", "there are no messages"),
        (["hello"], "message 1 is no object"),
        ([{"content": "x"}], "message 1 has no role"),
        ([{"role": "user"}], "message 1 has no content"),
        ([{"role": "user", "content": 3}], "message 1 has no content"),
        ([{"role": "user", "content": [{"type": "image", "image": "x"}]}], "a part of type image"),
        ([{"role": "user", "content": ["x"]}], "a part of type str"),
    ],
)
def test_what_is_no_conversation_says_why(value: Any, reason: str) -> None:
    with pytest.raises(Unrenderable, match=reason):
        checked_messages(value)


def test_parts_of_text_are_joined_and_empty_fields_left_out() -> None:
    parts = [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]
    call = {"type": "function", "function": {"name": "add", "arguments": '{"x": 1}'}}
    found = checked_messages(
        [{"role": "user", "content": parts, "name": None}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    )
    assert found[0] == {"role": "user", "content": "a b"}
    assert found[1]["content"] == "" and found[1]["tool_calls"][0]["function"]["arguments"] == {"x": 1}

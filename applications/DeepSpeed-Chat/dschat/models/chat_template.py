"""Conversations as token ids: a tokenizer's chat template, what of it is trained, and how a long one is shortened."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from jinja2.exceptions import TemplateError
from transformers import PreTrainedTokenizerBase

from dschat.models.end_of_turn import template_end

SYSTEM, USER, ASSISTANT_ROLE = "system", "user", "assistant"
LEADING_ROLES = (SYSTEM, "developer")
"""Roles of messages that stay at the front of a conversation that is shortened."""
GENERATION_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")

Message = Mapping[str, Any]


class Unrenderable(ValueError):
    """A conversation that its template cannot render, or of which nobody can tell what to train; says why."""


class _Unstable(Unrenderable):
    """A conversation whose beginning is rendered differently when more follows."""


@dataclass(frozen=True)
class Conversation:
    """Messages and what else the template gets."""

    messages: tuple[Message, ...]
    """Each with "role" and "content", and what the template knows besides, such as "tool_calls"."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Descriptions of functions that the assistant may call."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """More variables of the template (`chat_template_kwargs`), such as enable_thinking."""

    def with_messages(self, messages: Sequence[Message]) -> Conversation:
        """The same with other messages."""
        return replace(self, messages=tuple(messages))

    def followed_by(self, messages: Sequence[Message]) -> Conversation:
        """The same with more messages at its end."""
        return self.with_messages((*self.messages, *messages))


@dataclass(frozen=True)
class Rendered:
    """A conversation's token ids."""

    ids: tuple[int, ...]
    """With one BOS at most."""
    trained: tuple[bool, ...]
    """Of each id, whether the loss counts it: the assistant's words and the end of each of its turns."""


@dataclass(frozen=True)
class _Segment:
    """A piece of a conversation's text."""

    text: str
    said: bool
    """Whether the assistant says it."""


def checked_messages(value: Any) -> tuple[Message, ...]:
    """Messages as the dataset holds them, with contents that are lists of text parts joined.

    Args:
        value: a list of {"role": …, "content": …}. Fields that are None, which tables fill in, are left out.
    Raises:
        Unrenderable: it is no such list; says which message and why.
    """
    if not isinstance(value, list | tuple) or not value:
        raise Unrenderable("there are no messages")
    return tuple(_checked_message(number, message) for number, message in enumerate(value, start=1))


def _checked_message(number: int, message: Any) -> Message:
    if not isinstance(message, Mapping):
        raise Unrenderable(f"message {number} is no object with role and content")
    found = {name: each for name, each in message.items() if each is not None}
    if not isinstance(found.get("role"), str) or not found["role"]:
        raise Unrenderable(f"message {number} has no role")
    content = found.get("content")
    if isinstance(content, list | tuple):
        found["content"] = "".join(_text_of_part(number, part) for part in content)
    elif content is None and found.get("tool_calls"):
        found["content"] = ""
    elif not isinstance(content, str):
        raise Unrenderable(f"message {number} has no content")
    if "tool_calls" in found:
        found["tool_calls"] = [_with_parsed_arguments(call) for call in found["tool_calls"]]
    return found


def _text_of_part(number: int, part: Any) -> str:
    kind = part.get("type") if isinstance(part, Mapping) else type(part).__name__
    if kind != "text" or not isinstance(part.get("text"), str):
        raise Unrenderable(f"message {number} has a part of type {kind}, and only text can be read")
    return str(part["text"])


def _with_parsed_arguments(call: Any) -> Any:
    """A tool call whose arguments, which tables hold as JSON text, are an object, as templates expect them."""
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("arguments"), str):
        return call
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        return call
    return {**call, "function": {**function, "arguments": arguments}}


@dataclass(frozen=True)
class ChatTemplate:
    """The chat template of a tokenizer."""

    tokenizer: PreTrainedTokenizerBase
    prefix: tuple[int, ...]
    """Ids that the tokenizer puts before any text (BOS); put before a conversation whose template does not."""

    def prompt_ids(self, conversation: Conversation) -> tuple[int, ...]:
        """Ids of a conversation that the assistant is to continue.

        Raises:
            Unrenderable: the template refuses it.
        """
        try:
            segments = self._segments(conversation, ask=True)
        except _Unstable:
            segments = [_Segment(self._text(conversation, ask=True), said=False)]
        return self._with_prefix([part for part, _ in self._tokenised(segments)])

    def rendered(self, conversation: Conversation) -> Rendered:
        """Ids of a whole conversation up to the end of the assistant's last turn, and which of them are trained.

        Raises:
            Unrenderable: the template refuses it, the assistant says nothing, or its words cannot be told apart.
        """
        turns = [number for number, each in enumerate(conversation.messages) if each["role"] == ASSISTANT_ROLE]
        if not turns:
            raise Unrenderable("no message is the assistant's")
        if self._marks_generation:
            return self._rendered_by_mark(conversation)
        if turns[0] == 0:
            raise Unrenderable("it begins with the assistant, and nobody has asked")
        segments = self._segments(conversation.with_messages(conversation.messages[: turns[-1] + 1]), ask=False)
        ids: list[int] = []
        trained: list[bool] = []
        for number, (part, said) in enumerate(self._tokenised(segments), start=1):
            counted = self._ended(part, closed=number == len(segments)) if said else ()
            ids += counted if number == len(segments) else part
            trained += [True] * len(counted) + [False] * (len(ids) - len(trained) - len(counted))
        front = len(self._with_prefix([tuple(ids)])) - len(ids)
        return Rendered(self._with_prefix([tuple(ids)]), (*[False] * front, *trained))

    def answer_ids(self, conversation: Conversation, answer: Sequence[Message]) -> tuple[int, ...]:
        """Ids of an answer to a conversation, up to and including the end of its last turn.

        Raises:
            Unrenderable: the template refuses it, or the conversation's own text changes when the answer follows.
        """
        asked = self._text(conversation, ask=True)
        whole = self._text(conversation.followed_by(answer), ask=False)
        if not whole.startswith(asked):
            raise Unrenderable("the template renders the prompt differently when an answer follows")
        segments = [_Segment(asked, said=False), _Segment(whole[len(asked) :], said=True)]
        return self._ended(self._tokenised(segments)[-1][0], closed=True)

    def shortened(self, conversation: Conversation, fits: Callable[[Conversation], bool]) -> Conversation | None:
        """The longest version that fits; None where not even the frame around the last exchange does.

        The oldest turns go first, and a leading system message stays. Where one exchange is left, its first message
        loses its beginning. What the template puts around a message is never cut.

        Args:
            conversation: in full.
            fits: whether a version is short enough.
        """
        messages = conversation.messages
        leading = 1 if messages[0]["role"] in LEADING_ROLES else 0
        starts = [number for number, each in enumerate(messages) if each["role"] == USER and number > leading]
        versions = [conversation, *(conversation.with_messages(messages[:leading] + messages[n:]) for n in starts)]
        for version in versions:
            if fits(version):
                return version
        return self._cut(versions[-1], leading, fits)

    def _cut(self, conversation: Conversation, first: int, fits: Callable[[Conversation], bool]) -> Conversation | None:
        """The version in which message number `first` lacks as few tokens of its beginning as it must."""
        messages = conversation.messages
        if first >= len(messages) or messages[first]["role"] == ASSISTANT_ROLE:
            return None
        ids = self.tokenizer(messages[first]["content"], add_special_tokens=False)["input_ids"]

        def without(count: int) -> Conversation:
            message = {**messages[first], "content": str(self.tokenizer.decode(ids[count:]))}
            return conversation.with_messages((*messages[:first], message, *messages[first + 1 :]))

        least, most = 1, len(ids) - 1  # something of it has to stay
        if most < least or not fits(without(most)):
            return None
        while least < most:
            middle = (least + most) // 2
            least, most = (least, middle) if fits(without(middle)) else (middle + 1, most)
        return without(least)

    @cached_property
    def end_id(self) -> int | None:
        """The one token with which the template ends an assistant's turn; None where it ends it without one."""
        return template_end(self.tokenizer)

    @property
    def _marks_generation(self) -> bool:
        """Whether the template says itself what the assistant generates."""
        return bool(GENERATION_MARK.search(str(self.tokenizer.get_chat_template())))

    def _rendered_by_mark(self, conversation: Conversation) -> Rendered:
        found = self._applied(conversation, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        ids, marked = found["input_ids"], [bool(each) for each in found["assistant_masks"]]
        if not any(marked):
            raise Unrenderable("the template marks nothing as the assistant's")
        for place in range(1, len(ids)):
            # the end of a turn may stand behind the mark, and is trained all the same
            if ids[place] == self.end_id and marked[place - 1]:
                marked[place] = True
        last = max(place for place, counts in enumerate(marked) if counts) + 1
        whole = self._with_prefix([tuple(ids[:last])])
        return Rendered(whole, (*[False] * (len(whole) - last), *marked[:last]))

    def _segments(self, conversation: Conversation, *, ask: bool) -> list[_Segment]:
        """The conversation's text, cut before and behind every turn of the assistant.

        Raises:
            _Unstable: earlier messages are rendered differently when others follow.
        """
        messages = conversation.messages
        whole = self._text(conversation, ask=ask)
        segments, done = [], ""
        for number, message in enumerate(messages):
            if message["role"] != ASSISTANT_ROLE or number == 0:
                continue
            before = self._text(conversation.with_messages(messages[:number]), ask=True)
            behind = self._text(conversation.with_messages(messages[: number + 1]), ask=False)
            if not (before.startswith(done) and behind.startswith(before) and whole.startswith(behind)):
                raise _Unstable(
                    f"the template renders the messages before the assistant's message {number + 1} differently when "
                    "it follows, so that nobody can tell which tokens are the assistant's; mark them with "
                    "{% generation %} in the template"
                )
            segments += [_Segment(before[len(done) :], said=False), _Segment(behind[len(before) :], said=True)]
            done = behind
        rest = whole[len(done) :]
        return [*segments, _Segment(rest, said=False)] if rest or not segments else segments

    def _tokenised(self, segments: Sequence[_Segment]) -> list[tuple[tuple[int, ...], bool]]:
        """The ids of each segment, and whether the assistant says them.

        They are those of the whole text where its tokens end at the segments' ends, as special tokens see to it. Else
        each segment is tokenised apart: what the assistant says begins where a prompt would end.
        """
        whole, parts, text = self._tokens("".join(segment.text for segment in segments)), [], ""
        start = 0
        for segment in segments:
            text += segment.text
            end = len(self._tokens(text))
            if self._tokens(text) != whole[:end]:
                return [(self._tokens(each.text), each.said) for each in segments]
            parts.append((whole[start:end], segment.said))
            start = end
        return parts

    def _tokens(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _ended(self, ids: tuple[int, ...], *, closed: bool) -> tuple[int, ...]:
        """What the assistant says up to and including the end of its last turn there.

        Args:
            ids: of one or more turns.
            closed: whether the tokenizer's EOS takes the place of an end that the template does not write as a token.
        """
        if self.end_id is not None and self.end_id in ids:
            return ids[: len(ids) - ids[::-1].index(self.end_id)]
        if closed and self.tokenizer.eos_token_id is not None:
            return (*ids, int(self.tokenizer.eos_token_id))
        return ids

    def _with_prefix(self, parts: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
        """The parts one after the other, with the tokenizer's BOS in front where the template has put none."""
        ids = tuple(token for part in parts for token in part)
        return ids if ids[: len(self.prefix)] == self.prefix else (*self.prefix, *ids)

    def _text(self, conversation: Conversation, *, ask: bool) -> str:
        return str(self._applied(conversation, tokenize=False, add_generation_prompt=ask))

    def _applied(self, conversation: Conversation, **arguments: Any) -> Any:
        """What the library makes of it.

        Raises:
            Unrenderable: the template complains.
        """
        apply: Callable[..., Any] = self.tokenizer.apply_chat_template
        tools = list(conversation.tools) or None
        try:
            return apply(list(conversation.messages), tools=tools, **arguments, **conversation.options)
        except (TemplateError, TypeError, KeyError, ValueError) as error:
            raise Unrenderable(f"the chat template refuses it: {' '.join(str(error).split())}") from error

"""How a judge's reply is read: from the server's bytes to the judge's words, and from those to a verdict.

A reply is untrusted: of any shape, length and nesting. It is read strictly: one verdict that cannot mean anything else,
or none.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dschat.judging.transport import RawReply

Choice = Literal["A", "B", "E"]

KEPT_CHARACTERS = 20_000
"""Of a reply, in the record."""

CUT_REASONS = ("length", "max_tokens", "MAX_TOKENS")
"""Finish reasons of a reply that ended at the limit of tokens."""


class NotWhole(Exception):
    """A reply that is none, though the server calls it a success; its text shows the beginning."""


class ServerError(Exception):
    """A status other than success, or an error in place of a reply."""

    def __init__(self, status: int, message: str, *, code: str = "", parameter: str = "") -> None:
        """
        Args:
            status: of HTTP.
            message: the server's words.
            code: its name for the error, "" where it gives none.
            parameter: the parameter of the request that it blames, "" where it blames none.
        """
        super().__init__(message)
        self.status, self.message, self.code, self.parameter = status, message, code, parameter


@dataclass(frozen=True)
class Completion:
    """What the judge said."""

    text: str
    """"" where it said nothing that can be read as text."""
    kept: str
    """What the record keeps the beginning of: the text, or what stands in its place."""
    refused: bool
    cut: bool
    """Whether it ended at the limit of tokens."""
    too_long: bool = False
    """Whether it has more bytes than are read."""


def read_completion(raw: RawReply) -> Completion:
    """The judge's words in a server's reply.

    Raises:
        ServerError: it is an error.
        NotWhole: it holds no reply; another attempt may.
    """
    body = _as_text(raw.body)
    value = _parsed(body)
    if not 200 <= raw.status < 300:
        raise _server_error(raw.status, value, body)
    if not raw.whole:
        return Completion("", body, refused=False, cut=False, too_long=True)
    content = _mapping(value)
    choices = content.get("choices")
    if not choices and content.get("error"):
        status = _mapping(content["error"]).get("code")
        raise _server_error(status if isinstance(status, int) and 400 <= status < 600 else 500, value, body)
    if not choices:
        raise NotWhole(body)
    choice = _mapping(choices[0]) if isinstance(choices, list) else {}
    message = _mapping(choice.get("message"))
    refusal = message.get("refusal") if isinstance(message.get("refusal"), str) else ""
    text = _joined(message.get("content"))
    kept = text or refusal or body
    cut = choice.get("finish_reason") in CUT_REASONS
    return Completion(_encodable(text), _encodable(kept), refused=bool(refusal), cut=cut)


def _server_error(status: int, value: Any, body: str) -> ServerError:
    content = _mapping(value[0] if isinstance(value, list) and value else value)
    error = content.get("error", content)
    detail = _mapping(error)
    words = (detail.get("message"), content.get("message"), content.get("detail"), error)
    message = next((word for word in words if isinstance(word, str) and word), "") or body
    code, parameter = (name if isinstance(name := detail.get(key), str) else "" for key in ("code", "param"))
    return ServerError(status, _encodable(message), code=code, parameter=parameter)


def _joined(content: Any) -> str:
    """The text of a message: itself, or the text parts of a list; what else stands there is no text."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(map(_part, content))
    return ""


def _part(part: Any) -> str:
    """A part's text; thinking, pictures and the like have none."""
    if isinstance(part, str):
        return part
    found = _mapping(part)
    text = found.get("text") if found.get("type", "text") in ("text", "output_text") else None
    return text if isinstance(text, str) else ""


def _parsed(body: str) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _as_text(body: bytes) -> str:
    return body.decode(json.detect_encoding(body), "replace")


def _encodable(text: str) -> str:
    """The text without lone surrogates, which no file takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


# --- from words to a verdict


@dataclass(frozen=True)
class Reply:
    """A reply that could be read."""

    choice: Choice
    comment: str | None
    """The judge's comparison, where it gave one."""


_TAGS = "think|thinking|thoughts?|reason|reasoning|analysis|reflection|scratchpad"
_THOUGHT_BEGINS = re.compile(
    rf"<(?:{_TAGS})>|\[THINK\]|◁think▷|<\|channel\|>analysis<\|message\|>|<\|begin_of_thought\|>", re.IGNORECASE
)
_THOUGHT_ENDS = re.compile(
    rf"</(?:{_TAGS})>|\[/THINK\]|◁/think▷|<\|channel\|>final<\|message\|>|<\|end_of_thought\|>", re.IGNORECASE
)
_FINAL_MARKS = re.compile(r"</?(?:answer|verdict|output)>|<\|(?:(?:begin|end)_of_solution|return|end|im_end)\|>")

_MARKS = r"\s\"'`*_~“”‘’„‚«»‹›「」『』《》〈〉【】()\[\]{}<>.!,;:。、"
_BEFORE, _AFTER = rf"[{_MARKS}#-]*", rf"[{_MARKS}]*"
_NOUN = "(?i:summary|reply|answer|response|option|candidate)"
_LETTER = rf"{_BEFORE}([ABE]){_AFTER}"
_BOXED = r"\$*\\boxed\{\s*(?:\\(?:text|textbf|mathrm)\{\s*)?([ABE])\s*\}*\s*\$*\.?"
_LABEL = (
    rf"(?i:(?:(?:so|thus|therefore|hence),? )?(?:(?:my|the|final|overall|correct) )*"
    rf"(?:answer|verdict|choice|decision|winner|judge?ment|preference|(?:better|best) {_NOUN}))"
)
_BARE_LINE = re.compile(rf"{_LETTER}|{_BOXED}")
_LABELLED_LINE = re.compile(rf"{_BEFORE}{_LABEL}(?:[*_]* ?[:=]| is:?){_BEFORE}(?:{_NOUN} )?(?:{_LETTER}|{_BOXED})")
_CHOICE = re.compile(rf"{_BEFORE}(?:{_NOUN}[ _-]?)?{_LETTER}")
_LONGEST_LINE = 120
"""Characters of a line that is a verdict; a longer one is prose."""


def after_thinking(text: str) -> str | None:
    """What a judge says when it has thought, None where it did not come to an end.

    Thinking stands between tags at the beginning; the first of them may be missing, as some servers put it into the
    prompt.
    """
    ends = list(_THOUGHT_ENDS.finditer(text))
    said = text[ends[-1].end() :] if ends else text
    return None if _THOUGHT_BEGINS.search(said) else _FINAL_MARKS.sub("\n", said).strip()


def parse_reply(text: str) -> Reply | None:
    """Read a verdict; None for anything that is none, or that holds two different ones.

    These are read, after the thinking: a letter with punctuation around it, alone or on the first or last line;
    `Answer: A`, `The verdict is **A**.` and the like on such a line; and, at the end, a JSON object with `choice` and
    perhaps `comparison`, bare or in a code fence. A letter in a sentence is no verdict.
    """
    said = after_thinking(text)
    if not said or len(said) > KEPT_CHARACTERS:
        return None
    objects = _objects(said)
    if objects is not None:
        return _agreed([choice for choice, _ in objects], comment=objects[-1][1])
    # full-width letters and punctuation become plain ones
    lines = [" ".join(line.split()) for line in unicodedata.normalize("NFKC", said).splitlines()]
    lines = [line for line in lines if line.strip("`*_#=~-")]
    labelled, bare = (dict(_verdicts(lines, form)) for form in (_LABELLED_LINE, _BARE_LINE))
    ends = {0, len(lines) - 1}
    if len(lines) - 1 in labelled:
        # letters alone on a line may be headings above it
        return _agreed(labelled.values())
    return _agreed([*labelled.values(), *bare.values()]) if ends & {*labelled, *bare} else None


def _verdicts(lines: Sequence[str], form: re.Pattern[str]) -> Iterator[tuple[int, str]]:
    """The lines of a form, by number, each with its letter."""
    for number, line in enumerate(lines):
        match = form.fullmatch(line) if len(line) <= _LONGEST_LINE else None
        if match:
            yield number, match[match.lastindex or 0]


def _objects(text: str) -> list[tuple[str, str | None]] | None:
    """Choice and comparison of each JSON object with a choice; None where the text does not end in such an object."""
    decoder = json.JSONDecoder(object_pairs_hook=_without_repeated_keys)
    found: list[tuple[str, str | None]] = []
    at, end = text.find("{"), 0
    while at >= 0:
        try:
            value, after = decoder.raw_decode(text, at)
        except ValueError:
            at = text.find("{", at + 1)
            continue
        except RecursionError:
            return None
        if "choice" in value:
            comparison, choice = value.get("comparison"), value["choice"]
            match = _CHOICE.fullmatch(unicodedata.normalize("NFKC", choice)) if isinstance(choice, str) else None
            found.append((match[1] if match else "", comparison if isinstance(comparison, str) else None))
            end = after
        at = text.find("{", after)
    return found if found and not text[end:].strip("`~ \t\r\n") else None


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key comes twice")
    return value


def _agreed(letters: Iterable[str], *, comment: str | None = None) -> Reply | None:
    """The verdict that all of them are, None where they differ or there is none."""
    match sorted(set(letters)):
        case ["A" | "B" | "E" as choice]:
            return Reply(choice, comment)
    return None

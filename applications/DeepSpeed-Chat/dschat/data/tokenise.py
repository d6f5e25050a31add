"""From texts to token ids, the same way in every step.

A prompt is tokenised with the tokenizer's own beginning (BOS); an answer is tokenised apart from it, without special
tokens, and gets exactly one end-of-conversation id. So the boundary between the two is the same token boundary in SFT,
in the reward model and at generation. Over-long text is cut from the front of the prompt, behind the BOS: the cue that
asks for the answer, the answer and its end are never cut.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from dschat.data.stages import DataStage
from dschat.errors import UserError

Count = Literal[
    "rows", "kept", "shortened_prompts", "longest_prompt",
    "unreadable", "empty_prompts", "empty_responses", "without_tests", "equal_pairs", "too_long",
]  # fmt: skip
Tally = Counter[str]


@dataclass(frozen=True)
class Sample:
    """The texts of one row."""

    prompt: str | None
    answers: tuple[str | None, ...] = ()
    """Those that the stage learns from, the better one first."""
    cue: str = ""
    """End of the prompt that must not be cut."""
    record: str = "{}"
    """JSON of the dataset's record."""
    lacks_tests: bool = False
    """Whether tests are needed and there are none."""


@dataclass(frozen=True)
class TextEncoder:
    """A tokenizer with the rules above."""

    tokenizer: PreTrainedTokenizerBase
    prefix: tuple[int, ...]
    """Ids that the tokenizer puts before any text (BOS)."""
    end_id: int
    """The id that ends every answer."""
    max_length: int
    """Most tokens of a row; of a prompt, where there are prompts alone."""

    @staticmethod
    def create(tokenizer: PreTrainedTokenizerBase, *, end_of_conversation: str | None, max_length: int) -> TextEncoder:
        """Work out the prefix and the end id.

        Raises:
            UserError: the tokenizer has no such end token, or the text of it is several tokens.
        """
        return TextEncoder(
            tokenizer=tokenizer,
            prefix=_prefix(tokenizer),
            end_id=end_of_conversation_id(tokenizer, end_of_conversation),
            max_length=max_length,
        )

    def fingerprint(self) -> dict[str, Any]:
        """Everything here that shapes token ids, JSON-serialisable."""
        return {
            "tokenizer": _tokenizer_key(self.tokenizer),
            "prefix": list(self.prefix),
            "end_id": self.end_id,
            "max_length": self.max_length,
        }

    def encode(self, samples: Sequence[Sample], stage: DataStage, tally: Tally) -> Iterator[dict[str, Any]]:
        """Tokenise samples for one stage, counting in `tally` what becomes of them.

        Yields:
            rows as `stage.row` makes them; prompt and answer together are at most max_length ids.
        """
        usable = [sample for sample in samples if not self._lacks_something(sample, tally)]
        prompts = [self._without_prefix(ids) for ids in self._bodies([sample.prompt for sample in usable])]
        columns = [self._answers([sample.answers[number] for sample in usable]) for number in range(len(stage.answers))]
        for number, (sample, body) in enumerate(zip(usable, prompts, strict=True)):
            answers = [column[number] for column in columns]
            fault = _fault(body, answers)
            if fault is not None:
                tally[fault] += 1
                continue
            tally["longest_prompt"] = max(tally["longest_prompt"], len(self.prefix) + len(body))
            prompt = self._fitted(sample, body, room=self.max_length - max(map(len, answers), default=0))
            if prompt is None:
                tally["too_long"] += 1
                continue
            tally["shortened_prompts"] += len(prompt) < len(self.prefix) + len(body)
            tally["kept"] += 1
            yield stage.row(prompt, answers, record=sample.record)

    @staticmethod
    def _lacks_something(sample: Sample, tally: Tally) -> bool:
        """Count the row, and say whether a text that the stage needs is missing or blank, or its tests."""
        tally["rows"] += 1
        if not (sample.prompt or "").strip():
            tally["empty_prompts"] += 1
            return True
        if not all((text or "").strip() for text in sample.answers):
            tally["empty_responses"] += 1
            return True
        tally["without_tests"] += sample.lacks_tests
        return sample.lacks_tests

    def _fitted(self, sample: Sample, body: list[int], *, room: int) -> list[int] | None:
        """Prefix and prompt in at most `room` tokens, None if not even the cue fits."""
        excess = len(self.prefix) + len(body) - room
        if excess <= 0:
            return [*self.prefix, *body]
        if len(body) - excess < max(1, self._cue_tokens(sample, body)):
            return None
        return [*self.prefix, *body[excess:]]

    def _cue_tokens(self, sample: Sample, body: list[int]) -> int:
        """How many tokens at the end of a prompt hold its cue."""
        if not sample.cue:
            return 0
        if not self.tokenizer.is_fast:
            return len(self._bodies([sample.cue])[0])
        start = len(sample.prompt or "") - len(sample.cue)
        offsets = self.tokenizer(sample.prompt, add_special_tokens=False, return_offsets_mapping=True, verbose=False)[
            "offset_mapping"
        ]
        return len(offsets) - next((index for index, (_, end) in enumerate(offsets) if end > start), len(offsets))

    def _bodies(self, texts: Sequence[str | None]) -> list[list[int]]:
        """Ids of texts without special tokens."""
        if not texts:
            return []
        return self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"]

    def _without_prefix(self, ids: list[int]) -> list[int]:
        """A prompt's ids without the beginning (BOS) that a rendered chat template has written already."""
        length = len(self.prefix)
        return ids[length:] if length and tuple(ids[:length]) == self.prefix else ids

    def _answers(self, texts: Sequence[str | None]) -> list[list[int]]:
        """Ids of answers, each with exactly one end id: the first that the text brought, else one behind it."""
        return [
            [*(ids[: ids.index(self.end_id)] if self.end_id in ids else ids), self.end_id]
            for ids in self._bodies(texts)
        ]


def _fault(body: list[int], answers: Sequence[list[int]]) -> Count | None:
    """Why tokenised texts are of no use; an answer's ids end in the end id."""
    if not body:
        return "empty_prompts"
    if any(len(ids) == 1 for ids in answers):
        return "empty_responses"
    return "equal_pairs" if len(answers) > 1 and answers[0] == answers[1] else None


def end_of_conversation_id(tokenizer: PreTrainedTokenizerBase, text: str | None) -> int:
    """The id that ends an answer: the tokenizer's EOS, or the one token that `text` stands for.

    Raises:
        UserError: there is no EOS, or `text` is not one token.
    """
    if text is None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                f"the tokenizer {tokenizer.name_or_path} has no end-of-sequence token; name one of its tokens with "
                "--end_of_conversation_token"
            )
        return int(tokenizer.eos_token_id)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    # GPT-2's <|endoftext|> is its unknown token, too
    if len(ids) != 1 or (ids[0] == tokenizer.unk_token_id and text != tokenizer.unk_token):
        raise UserError(
            f'--end_of_conversation_token "{text}" is {len(ids)} tokens of {tokenizer.name_or_path} instead of one it '
            f"knows; pass a token of its vocabulary, such as {tokenizer.eos_token}"
        )
    return int(ids[0])


def _prefix(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The ids that the tokenizer puts before a text; what it may put behind one (EOS) is not wanted here."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return tuple(full[:start])
    return ()


def _tokenizer_key(tokenizer: PreTrainedTokenizerBase) -> str:
    """SHA-256 of what decides the ids of a text; not of the padding and truncation that a tokenizer remembers."""
    if tokenizer.is_fast:
        content: Mapping[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        content = {name: value for name, value in content.items() if name not in ("padding", "truncation")}
    else:
        content = {
            "class": type(tokenizer).__name__,
            "vocabulary": tokenizer.get_vocab(),
            "settings": {name: str(value) for name, value in sorted(tokenizer.init_kwargs.items())},
        }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

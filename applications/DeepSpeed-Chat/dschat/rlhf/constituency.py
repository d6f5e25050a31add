"""Constituents of an answer and the tokens where they start, for macro actions by parsing.

The parser is Stanza's (Qi et al. 2020, arXiv 2003.07082), which the extra `parsing` installs.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Protocol

from transformers import PreTrainedTokenizerBase

from dschat.errors import UserError

LANGUAGE = "en"
INSTALL = 'pip install "dschat[parsing]"'
DOWNLOAD = f"python -c \"import stanza; stanza.download('{LANGUAGE}', processors='tokenize,pos,constituency')\""


@dataclass(frozen=True)
class Constituent:
    """A node of a sentence's parse: a phrase with children, or a word without."""

    start: int
    """Index of its first character in the text."""
    children: tuple[Constituent, ...] = ()

    def words(self) -> Iterator[Constituent]:
        """Its leaves, from left to right."""
        if not self.children:
            yield self
        for child in self.children:
            yield from child.words()


class ConstituencyParser(Protocol):
    """Finds the phrases of texts."""

    def parse(self, texts: Sequence[str]) -> list[tuple[Constituent, ...] | None]:
        """The parses of each text's sentences, in order; None for a text that cannot be parsed."""
        ...


class StanzaParser:
    """Stanza's constituency parser for English; its models must have been downloaded before."""

    def __init__(self, *, device: str) -> None:
        """Load the parser.

        Args:
            device: where it runs, such as cpu or cuda:1.
        Raises:
            UserError: the package or its models are not there; the sentence says how to get them.
        """
        try:
            import stanza
        except ImportError as error:
            raise UserError(f"--termination_condition parsing needs the package stanza: {INSTALL}") from error
        try:
            self._pipeline = stanza.Pipeline(
                LANGUAGE, processors="tokenize,pos,constituency", download_method=None, verbose=False, device=device
            )
        except FileNotFoundError as error:
            raise UserError(
                f"--termination_condition parsing needs Stanza's models for {LANGUAGE}; fetch them once: {DOWNLOAD}"
            ) from error

    def parse(self, texts: Sequence[str]) -> list[tuple[Constituent, ...] | None]:
        """Parses of each text's sentences; None for a text without a sentence."""
        return [constituents(document) for document in self._pipeline.bulk_process(list(texts))]


def constituents(document: Any) -> tuple[Constituent, ...] | None:
    """The parses of a Stanza document as `Constituent`s; None where it has no sentence, or one without a parse."""
    if not document.sentences or any(sentence.constituency is None for sentence in document.sentences):
        return None
    parses = []
    for sentence in document.sentences:
        # a word that is a part of a token, such as the n't of don't, may have no position of its own
        starts = [
            token.start_char if word.start_char is None else word.start_char
            for token in sentence.tokens
            for word in token.words
        ]
        parses.append(_converted(sentence.constituency, iter(starts)))
    return tuple(parses)


def token_ends(tokens: Sequence[int], tokenizer: PreTrainedTokenizerBase) -> tuple[str, list[int]]:
    """The text of an answer, and of each of its tokens where it ends in that text.

    Special tokens have no text. A token that completes no character, such as the first byte of an accented letter,
    ends where the token before it does.
    """

    def text_of(count: int) -> str:
        return str(tokenizer.decode(list(tokens[:count]), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    text = text_of(len(tokens))
    ends = (_shared(text_of(count), text) for count in range(1, len(tokens) + 1))
    return text, list(accumulate(ends, max))


def constituent_starts(sentences: Sequence[Constituent], text: str, ends: Sequence[int], *, cutoff: int) -> list[int]:
    """The tokens at which the segments of a parsed answer start (arXiv 2410.02743, Sec. 3.2).

    A sentence starts a segment. Down from its root, a phrase of fewer than `cutoff` tokens is a segment, a larger one
    is taken apart, and a single word joins the segment before it.

    Args:
        sentences: parses of the text's sentences, in order.
        text: the answer.
        ends: where each of its N tokens ends in the text, see `token_ends`.
        cutoff: C, at least 1.
    Returns:
        positions among the N tokens, ascending, without repetition; none where the text has no word.
    """
    words = [word.start for sentence in sentences for word in sentence.words()]
    word_of_token = _words_of_tokens(words, text, ends)
    found: list[int] = []
    first = 0
    for sentence in sentences:
        found.append(first)
        found += _phrase_starts(sentence, first, word_of_token, cutoff)
        first += sum(1 for _ in sentence.words())
    tokens = {bisect_left(word_of_token, word) for word in found}
    return sorted(tokens - {len(word_of_token)})


def _phrase_starts(phrase: Constituent, first: int, word_of_token: list[int], cutoff: int) -> list[int]:
    """Numbers of the words that start a segment in a phrase whose first word has the number `first`."""
    count = sum(1 for _ in phrase.words())
    if count == 1:
        return []
    if bisect_left(word_of_token, first + count) - bisect_left(word_of_token, first) < cutoff:
        return [first]
    found: list[int] = []
    for child in phrase.children:
        found += _phrase_starts(child, first, word_of_token, cutoff)
        first += sum(1 for _ in child.words())
    return found


def _words_of_tokens(words: Sequence[int], text: str, ends: Sequence[int]) -> list[int]:
    """The number of the word that each token belongs to, never falling.

    A token belongs to the word in which its first visible character lies; one without such a character goes with the
    token after it, at the end with the one before it.
    """
    owners: list[int | None] = []
    begin = 0
    for end in ends:
        visible = next((at for at in range(begin, end) if not text[at].isspace()), None)
        owners.append(None if visible is None else max(0, bisect_right(words, visible) - 1))
        begin = end
    following = next((owner for owner in reversed(owners) if owner is not None), 0)
    filled = []
    for owner in reversed(owners):
        following = following if owner is None else owner
        filled.append(following)
    return filled[::-1]


def _shared(begin: str, text: str) -> int:
    """How many characters of `begin` are those of `text`: all but, perhaps, the sign for an unfinished one."""
    if text.startswith(begin):
        return len(begin)
    return next((at for at, (one, other) in enumerate(zip(begin, text, strict=False)) if one != other), len(text))


def _converted(tree: Any, starts: Iterator[int]) -> Constituent:
    """A Stanza tree, whose leaves take the positions of the sentence's words in order."""
    if not tree.children:
        return Constituent(next(starts))
    children = tuple(_converted(child, starts) for child in tree.children)
    return Constituent(children[0].start, children)

"""Constituents and the tokens where they start, against hand-made parses."""

from __future__ import annotations

import random
from itertools import accumulate
from types import SimpleNamespace
from typing import Any

import pytest

from dschat.errors import UserError
from dschat.rlhf.constituency import Constituent, StanzaParser, constituent_starts, constituents, token_ends
from tests.oracles.segment_loops import Node, leaves, phrase_segments
from toys.tokenizers import make_tokenizer

TEXT = "The cat sees a big red bird. It runs"


def word(text: str, after: int = 0) -> Constituent:
    return Constituent(TEXT.index(text, after))


def phrase(*children: Constituent) -> Constituent:
    return Constituent(children[0].start, children)


FIRST = phrase(
    phrase(word("The"), word("cat")),
    phrase(word("sees"), phrase(word("a "), word("big"), word("red"), word("bird"))),
    word("."),
)
SECOND = phrase(phrase(word("It")), phrase(word("runs")))


def words_as_tokens() -> list[int]:
    """Where tokens end if each is a word with the blank before it, and the full stop one of its own."""
    pieces = ["The", " cat", " sees", " a", " big", " red", " bird", ".", " It", " runs"]
    assert "".join(pieces) == TEXT
    ends, at = [], 0
    for piece in pieces:
        at += len(piece)
        ends.append(at)
    return ends


@pytest.mark.parametrize(
    ("cutoff", "expected"),
    [
        # every phrase is taken apart; a word joins the segment before it
        (1, [0, 8]),
        # "The cat" is too large for 2, so both its words stand alone and join
        (2, [0, 8]),
        # "The cat" | "sees" joins it | "a big red bird" has 4 tokens: apart, its words join too
        (3, [0, 8]),
        (5, [0, 3, 8]),
        # "sees a big red bird" is one phrase now; the full stop joins it
        (6, [0, 2, 8]),
        # whole sentences
        (9, [0, 8]),
    ],
)
def test_small_phrases_are_segments_and_single_words_join(cutoff: int, expected: list[int]) -> None:
    assert constituent_starts((FIRST, SECOND), TEXT, words_as_tokens(), cutoff=cutoff) == expected


def random_phrase(randomness: random.Random, depth: int) -> Node:
    """A word of 1 to 3 tokens, or a phrase of up to 4 nodes."""
    if depth == 0 or randomness.random() < 0.3:
        return randomness.randint(1, 3)
    return [random_phrase(randomness, depth - 1) for _ in range(randomness.randint(1, 4))]


def parsed(node: Node, at: list[int]) -> Constituent:
    """A node as the package takes it; its words follow each other from character at[0], four characters each."""
    if isinstance(node, list):
        children = tuple(parsed(child, at) for child in node)
        return Constituent(children[0].start, children)
    start, at[0] = at[0], at[0] + 4
    return Constituent(start)


@pytest.mark.parametrize("seed", range(40))
def test_segments_equal_a_literal_walk_over_random_trees(seed: int) -> None:
    randomness = random.Random(seed)
    sentences = [random_phrase(randomness, 4) for _ in range(randomness.randint(1, 3))]
    counts = [count for sentence in sentences for count in leaves(sentence)]
    text = "abc " * len(counts)
    # a word of k tokens ends with its k-th character; the blank before a word belongs to the word's first token
    ends = [4 * word + end for word, count in enumerate(counts) for end in [*range(1, count), 3]]
    at = [0]
    parses = tuple(parsed(sentence, at) for sentence in sentences)
    for cutoff in (1, 2, 3, 5, 8, 13):
        segments = phrase_segments(sentences, cutoff)
        expected = [0, *accumulate(segments[:-1])]
        assert constituent_starts(parses, text, ends, cutoff=cutoff) == expected, cutoff


def test_phrases_are_measured_in_tokens_not_words() -> None:
    ends = [i + 1 for i in range(len(TEXT))]  # one token per character
    # " a big red bird" has 15 characters; a blank belongs to the word that follows it
    assert constituent_starts((FIRST,), TEXT, ends, cutoff=15) == [0]
    assert constituent_starts((FIRST,), TEXT, ends, cutoff=16) == [0, TEXT.index(" a ")]


def test_tokens_across_words_and_without_text() -> None:
    # "The cat" is one token, one without text follows, then one with the rest of both sentences, then an end token
    ends = [7, 7, len(TEXT), len(TEXT)]
    assert constituent_starts((FIRST, SECOND), TEXT, ends, cutoff=5) == [0]
    assert constituent_starts((FIRST, SECOND), TEXT, ends, cutoff=4) == [0, 1]
    assert constituent_starts((), "  ", [1, 2], cutoff=5) == []


def test_token_ends_follow_the_text_and_split_characters() -> None:
    tokenizer = make_tokenizer()
    text = "red cät 鳥 sees"
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    answer, ends = token_ends([*tokens, tokenizer.eos_token_id], tokenizer)
    assert answer == text
    assert len(tokens) > len(text.split())
    assert ends == sorted(ends)
    assert ends[-1] == ends[-2] == len(text)
    # the bytes of one character end together, with the last of them
    inside = [end for end in ends if text[:end].endswith("鳥")]
    assert inside
    assert all(answer[:end] == text[:end] for end in ends)


def as_stanza(text: str, sentence: list[str], tree: Any, *, split: str | None = None) -> SimpleNamespace:
    """What Stanza's document looks like to its reader; `split` names a token whose words have no position."""
    at, tokens = 0, []
    for piece in sentence:
        at = text.index(piece, at)
        parts = ["do", "n't"] if piece == split else [piece]
        words = [SimpleNamespace(start_char=None if piece == split else at) for _ in parts]
        tokens.append(SimpleNamespace(start_char=at, words=words))
    return SimpleNamespace(sentences=[SimpleNamespace(tokens=tokens, constituency=tree)])


def tree(*children: Any) -> SimpleNamespace:
    return SimpleNamespace(children=children)


def test_stanza_documents_are_read() -> None:
    leaves = [tree() for _ in range(4)]
    document = as_stanza("I don't run", ["I", "don't", "run"], tree(leaves[0], tree(*leaves[1:])), split="don't")
    (sentence,) = constituents(document)
    assert [w.start for w in sentence.words()] == [0, 2, 2, 8]
    assert sentence.children[1].start == 2
    assert constituents(SimpleNamespace(sentences=[])) is None


def test_stanza_itself_gives_such_documents() -> None:
    pytest.importorskip("stanza")
    from stanza.models.common.doc import Document
    from stanza.models.constituency.tree_reader import read_trees

    text = "The cat sees a big red bird."
    pieces = ["The", "cat", "sees", "a", "big", "red", "bird", "."]
    words, at = [], 0
    for number, piece in enumerate(pieces, start=1):
        at = text.index(piece, at)
        words.append({"id": (number,), "text": piece, "start_char": at, "end_char": at + len(piece)})
    document = Document([words], text=text)
    brackets = "(ROOT (S (NP (DT The) (NN cat)) (VP (VBZ sees) (NP (DT a) (JJ big) (JJ red) (NN bird))) (. .)))"
    document.sentences[0].constituency = read_trees(brackets)[0]
    parses = constituents(document)
    assert [w.start for w in parses[0].words()] == [0, 4, 8, 13, 15, 19, 23, 27]
    ends = [3, 7, 12, 14, 18, 22, 27, 28]
    assert constituent_starts(parses, text, ends, cutoff=5) == [0, 3]


def test_missing_parser_names_the_extra_or_the_download() -> None:
    with pytest.raises(UserError) as caught:
        StanzaParser(device="cpu")
    assert 'pip install "dschat[parsing]"' in str(caught.value) or "stanza.download" in str(caught.value)
    assert "\n" not in str(caught.value)

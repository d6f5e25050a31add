"""Rollouts cut into segments: each row by itself, whatever its batch."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from dschat.config.ppo import MacroActionConfig
from dschat.data.batches import PromptBatch
from dschat.generation import Answers
from dschat.rlhf.constituency import Constituent
from dschat.rlhf.experience import Rollout
from dschat.rlhf.macro_actions import random_lengths
from dschat.rlhf.rollout import make_rollout
from dschat.rlhf.segmenter import Segmenter, Segments
from tests.oracles.segment_loops import fixed_starts, perplexity_starts
from toys.tokenizers import make_tokenizer

TOKENIZER = make_tokenizer()
PROMPTS = ["red", "The sum", "a", "values", "What is the sum?", "list", "of", "items"]
ANSWERS = [
    "The number of items", "The sum is the total of all the values.", "", "   ", "sum",
    "the list of the values the list", "a b c d e f g h", "red cät 鳥",
]  # fmt: skip
CONFIGS = {
    "fixed": MacroActionConfig(ngram=3),
    "randomized": MacroActionConfig(termination_condition="randomized", repeat_times=1),
    "ppl": MacroActionConfig(termination_condition="ppl"),
    "parsing": MacroActionConfig(termination_condition="parsing", parser_cutoff=6, ngram=2),
}


class PairParser:
    """Every two words are a phrase; texts with a letter outside ASCII cannot be parsed."""

    def parse(self, texts: Sequence[str]) -> list[tuple[Constituent, ...] | None]:
        return [self._parse(text) if text.isascii() else None for text in texts]

    @staticmethod
    def _parse(text: str) -> tuple[Constituent, ...]:
        assert text.strip(), "a blank text was sent to the parser"
        words = [Constituent(i) for i in range(len(text)) if text[i] != " " and (i == 0 or text[i - 1] == " ")]
        pairs = [tuple(words[i : i + 2]) for i in range(0, len(words), 2)]
        return (Constituent(0, tuple(Constituent(pair[0].start, pair) for pair in pairs)),)


def make_rollout_of(rows: Sequence[int], *, pad: int = 0) -> Rollout:
    """The rows with these numbers, `pad` columns wider on both sides than they need be."""
    prompts = [TOKENIZER(PROMPTS[row]).input_ids for row in rows]
    answers = [[*TOKENIZER(ANSWERS[row], add_special_tokens=False).input_ids, TOKENIZER.eos_token_id] for row in rows]
    left, right = max(map(len, prompts)) + pad, max(map(len, answers)) + pad
    filler = TOKENIZER.pad_token_id
    batch = PromptBatch(
        torch.tensor([[filler] * (left - len(p)) + p for p in prompts]),
        torch.tensor([[0] * (left - len(p)) + [1] * len(p) for p in prompts]),
        tuple({} for _ in rows),
    )
    responses = torch.tensor([a + [filler] * (right - len(a)) for a in answers])
    return make_rollout(Answers.from_tokens(responses, (TOKENIZER.eos_token_id,)), batch, TOKENIZER)


def log_probs_of(rollout: Rollout) -> Tensor:
    """A number for each token that depends on the token alone."""
    return -(rollout.responses * 37 % 11).float()


def cut(name: str, rollout: Rollout, seed: int = 1) -> Segments:
    return Segmenter(CONFIGS[name], TOKENIZER, seed, PairParser()).segments(rollout, log_probs_of(rollout))


def positions(segments: Segments, row: int) -> list[int]:
    return segments.starts[row].nonzero().flatten().tolist()


@pytest.mark.parametrize("name", CONFIGS)
def test_a_batch_equals_its_rows_alone_whatever_the_padding(name: str) -> None:
    together = cut(name, make_rollout_of(range(8), pad=3))
    for row in range(8):
        alone = cut(name, make_rollout_of([row]))
        assert positions(alone, 0) == positions(together, row)
        assert alone.unparsed[0] == together.unparsed[row]


def test_rules_get_their_inputs_from_the_rollout() -> None:
    rollout = make_rollout_of(range(8))
    counts = rollout.response_mask.sum(dim=-1).tolist()
    fixed, ppl = cut("fixed", rollout), cut("ppl", rollout)
    for row, n in enumerate(counts):
        assert positions(fixed, row) == fixed_starts(n, 3)
        assert positions(ppl, row) == perplexity_starts((-log_probs_of(rollout)[row, :n]).exp().tolist())


def test_random_lengths_depend_on_the_seed_and_on_the_row() -> None:
    rollout = make_rollout_of(range(8))
    first, again, other = (cut("randomized", rollout, seed) for seed in (1, 1, 2))
    assert torch.equal(first.starts, again.starts)
    assert not torch.equal(first.starts, other.starts)
    decks = {tuple(random_lengths([s], repeat_times=1)[0].tolist()) for s in range(50)}
    row = 1
    n = int(rollout.response_mask[row].sum())
    gaps = [b - a for a, b in zip(positions(first, row), [*positions(first, row)[1:], n], strict=True)]
    assert any(list(deck[: len(gaps) - 1]) == gaps[:-1] for deck in decks)


def test_unparsed_answers_are_cut_by_ngram_and_counted() -> None:
    rollout = make_rollout_of(range(8))
    segments = cut("parsing", rollout)
    # the empty answer is unusable; the blank and the one outside ASCII cannot be parsed
    assert segments.unparsed.tolist() == [False, False, False, True, False, False, False, True]
    counts = rollout.response_mask.sum(dim=-1).tolist()
    for row in (3, 7):
        assert positions(segments, row) == fixed_starts(counts[row], 2)
    # pairs of words; the letters of "a b c d ..." are two tokens each with their blank
    assert TOKENIZER.decode(rollout.responses[6][: positions(segments, 6)[1]]) == "a b"
    assert len(positions(segments, 6)) == 4

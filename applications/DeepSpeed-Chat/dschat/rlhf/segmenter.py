"""Cuts the answers of a rollout into the segments that the settings ask for."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.ppo import MacroActionConfig
from dschat.rlhf.constituency import ConstituencyParser, constituent_starts, token_ends
from dschat.rlhf.experience import Rollout
from dschat.rlhf.macro_actions import random_lengths, segment_boundaries

SEED_BYTES = 7
"""Few enough for a seed that every generator takes."""


@dataclass(frozen=True)
class Segments:
    """The segments of B answers."""

    starts: Tensor
    """[B, R] bool, True where a segment begins."""
    unparsed: Tensor
    """[B] bool, usable rows that the parser could not read and that were cut by --ngram instead."""


@dataclass(frozen=True)
class Segmenter:
    """What `segment_boundaries` needs for each condition, from a rollout."""

    config: MacroActionConfig
    tokenizer: PreTrainedTokenizerBase
    seed: int
    """Of the run. A row's lengths also depend on its tokens, and on nothing else: not on its batch, rank or step."""
    parser: ConstituencyParser | None = None
    """For --termination_condition parsing alone."""

    def segments(self, rollout: Rollout, reference_log_probs: Tensor) -> Segments:
        """Cut every answer.

        Args:
            rollout: B rows.
            reference_log_probs: [B, R] of the answers' tokens under the reference.
        """
        mask = rollout.response_mask
        condition = self.config.termination_condition
        lengths = parsed = None
        unparsed = torch.zeros_like(rollout.usable)
        if condition == "randomized":
            lengths = random_lengths(self._row_seeds(rollout), repeat_times=int(self.config.repeat_times or 0))
        if condition == "parsing":
            parsed = self._parsed(rollout)
            unparsed = rollout.usable & torch.tensor([p is None for p in parsed], device=mask.device)
        starts = segment_boundaries(
            mask,
            condition=condition,
            ngram=self.config.ngram,
            lengths=lengths,
            log_probs=reference_log_probs,
            parsed=parsed,
        )
        return Segments(starts, unparsed)

    def _row_seeds(self, rollout: Rollout) -> list[int]:
        """A seed for each row, from its real tokens."""
        seeds = []
        for ids, real in zip(rollout.sequences.cpu(), rollout.attention_mask.cpu().bool(), strict=True):
            content = repr((self.seed, ids[real].tolist())).encode()
            seeds.append(int.from_bytes(hashlib.blake2b(content, digest_size=SEED_BYTES).digest()))
        return seeds

    def _parsed(self, rollout: Rollout) -> Sequence[Sequence[int] | None]:
        """Of each row the tokens where its constituents start, None where there are none."""
        if self.parser is None:
            raise RuntimeError("--termination_condition parsing was chosen, but no parser was loaded")
        rows = zip(rollout.responses.cpu(), rollout.response_mask.cpu(), strict=True)
        texts, ends = zip(*(token_ends(ids[kept].tolist(), self.tokenizer) for ids, kept in rows), strict=True)
        # a blank text is nothing to ask a parser about
        asked = [row for row, text in enumerate(texts) if text.strip()]
        answers = dict(zip(asked, self.parser.parse([texts[row] for row in asked]), strict=True)) if asked else {}
        cutoff = int(self.config.parser_cutoff or 0)
        found: list[Sequence[int] | None] = []
        for row, (text, ends_of_tokens) in enumerate(zip(texts, ends, strict=True)):
            constituents = answers.get(row)
            starts = constituent_starts(constituents, text, ends_of_tokens, cutoff=cutoff) if constituents else None
            found.append(starts or None)
        return found

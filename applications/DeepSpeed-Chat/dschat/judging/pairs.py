"""Two models' answers to the same prompts, row by row."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dschat.answering.journal import settings_path
from dschat.answering.results import Result, read_results
from dschat.errors import UserError

logger = logging.getLogger(__name__)

Side = Literal["A", "B"]

SAMPLED = "-sampled"
"""At the end of the name of a file with some rows of another."""
LONG_ANSWER = 20_000
"""Characters from which an answer is mentioned: a judge is paid by length."""


@dataclass(frozen=True)
class Pair:
    """One prompt with an answer of each model."""

    row: int
    """Number of the row in A's file, from 0."""
    prompt: str
    a: Result
    b: Result

    def answer(self, side: Side) -> Result:
        """The answer of one of the models."""
        return self.a if side == "A" else self.b

    def key(self, first: Side, *, judge: str, template: str) -> str:
        """32 hexadecimal digits that stand for one question: the texts, their order, the judge, its prompt."""
        answers = [self.answer(side).response for side in (first, other(first))]
        parts = [first, self.row, self.prompt, *answers, judge, template]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def other(side: Side) -> Side:
    """The side across."""
    return "B" if side == "A" else "A"


def load_pairs(path_a: Path, path_b: Path, *, num_sample: int, flags: tuple[str, str]) -> list[Pair]:
    """The first `num_sample` rows of two result files.

    Where a file repeats prompts, as the dataset's own answers (--ref-scores) do, and the rows do not lie side by side,
    each prompt counts once, with its first answers, and one file's prompts must all be in the other.

    Args:
        path_a: result file of model A.
        path_b: of model B, with the same prompts in the same order.
        num_sample: at most this many pairs; fewer where the files are shorter.
        flags: the flags that named the files, for messages.
    Raises:
        UserError: a file is missing or malformed, they are the same file, or their rows do not belong together.
    """
    if num_sample < 1:
        raise UserError(f"--num_sample must be at least 1, got {num_sample}")
    answers_a = read_results(path_a, flag=flags[0])
    answers_b = read_results(path_b, flag=flags[1])
    if path_a.resolve() == path_b.resolve():
        raise UserError(f"--{flags[0]} and --{flags[1]} are the same file {path_a}; pass two models' results")
    pairs = _by_prompt(answers_a, answers_b)
    if pairs is None:
        _check_aligned(path_a, path_b, answers_a, answers_b)
        pairs = [Pair(row, a.prompt, a, b) for row, (a, b) in enumerate(zip(answers_a, answers_b, strict=True))]
    else:
        logger.info("%d prompts are in both files, some several times: the first answers to each count", len(pairs))
    if len(pairs) < num_sample:
        logger.info("the files have %d pairs, fewer than --num_sample %d: all are used", len(pairs), num_sample)
    pairs = pairs[:num_sample]
    _mention_odd_answers(pairs)
    return pairs


def made_by(path: Path) -> str | None:
    """The model that wrote a result file, or the file that it is a sample of, as `<file>.run.json` says; else None."""
    for file in (path, path.with_name(path.stem.removesuffix(SAMPLED) + path.suffix)):
        try:
            settings = json.loads(settings_path(file).read_bytes())["settings"]
            model = "the dataset's own answers" if settings.get("ref_scores") else settings["model"]
        except (OSError, ValueError, LookupError, TypeError, AttributeError):  # missing, or written by something else
            continue
        if isinstance(model, str):
            return model
    return None


def _by_prompt(a: Sequence[Result], b: Sequence[Result]) -> list[Pair] | None:
    """Each prompt's first answers; None where rows lie side by side, none is repeated, or prompts are missing."""
    prompts = [[result.prompt for result in results] for results in (a, b)]
    if prompts[0] == prompts[1] or all(len(set(each)) == len(each) for each in prompts):
        return None
    first_a, first_b = ({prompt: row for row, prompt in reversed(list(enumerate(each)))} for each in prompts)
    shared = first_a.keys() & first_b.keys()
    if len(shared) < min(len(first_a), len(first_b)):
        return None
    return [Pair(row, a[row].prompt, a[row], b[first_b[a[row].prompt]]) for row in sorted(first_a[p] for p in shared)]


def _check_aligned(path_a: Path, path_b: Path, a: Sequence[Result], b: Sequence[Result]) -> None:
    advice = "sample both with the same --num_sample and --seed from results on the same prompts"
    for row, (left, right) in enumerate(zip(a, b, strict=False), start=1):
        if left.prompt != right.prompt:
            raise UserError(f"row {row} of {path_a} and of {path_b} have different prompts; {advice}")
    if len(a) != len(b):
        raise UserError(f"{path_a} has {len(a)} rows and {path_b} has {len(b)}; {advice}")


def _mention_odd_answers(pairs: Sequence[Pair]) -> None:
    sides: tuple[Side, Side] = ("A", "B")
    for side in sides:
        empty = [pair.row + 1 for pair in pairs if not pair.answer(side).response.strip()]
        if empty:
            logger.warning(
                "%d answers of model %s are empty (first in row %d); they are judged as empty answers",
                len(empty), side, empty[0],
            )  # fmt: skip
        longest = max(pairs, key=lambda pair: len(pair.answer(side).response))
        length = len(longest.answer(side).response)
        if length >= LONG_ANSWER:
            logger.warning(
                "model %s's answer in row %d has %s characters; a judge reads all of it", side, longest.row + 1,
                f"{length:,}",
            )  # fmt: skip

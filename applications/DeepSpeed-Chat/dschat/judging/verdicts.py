"""Verdicts: one record per question to a judge, kept in a file that is only ever appended to.

The published fields are there under their names: `prompt`, the two answers under the paths of their files, the rewards
under `<path>_reward_score`, `winner` (A, B or Tie) and, where the judge gave one, `comment`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, get_args

from dschat.answering.appended_file import AppendedFile
from dschat.answering.results import Result, finite
from dschat.errors import UserError
from dschat.judging.pairs import Pair, Side, other

Winner = Literal["A", "B", "Tie"]
Status = Literal["judged", "unparsable", "refused", "failed"]
Order = Literal["both", "random", "fixed"]

REWARD_MODEL = "reward-model"
HUMAN = "human"


@dataclass(frozen=True)
class Verdict:
    """What became of one question."""

    key: str
    """See `Pair.key`."""
    pair: Pair
    first: Side
    """Whose answer was shown first."""
    order: Order
    """How it was chosen; with "both" a pair needs a verdict in each order."""
    status: Status
    """unparsable: the judge replied, but with no verdict. refused: the server will not answer this question, however
    often it is asked. failed: no reply could be had this time."""
    winner: Winner | None
    """None unless judged."""
    replies: tuple[str, ...] = ()
    """Everything that the judge replied, the last reply being the one that counts."""
    comment: str | None = None
    problem: str | None = None
    """Why there is no verdict."""
    requests: int = 0
    """HTTP requests that were made for it, retries included."""


@dataclass(frozen=True)
class Contest:
    """Who is compared, by whom: what all records of a verdict file share."""

    model_a: str
    """Path of model A's result file, as it was given."""
    model_b: str
    dataset: str
    judge: str
    """A model's name, or reward-model, or human."""
    template: str
    """Stands for the wording of the question, "" where there is none."""

    def to_row(self, verdict: Verdict) -> dict[str, Any]:
        """The record of a verdict."""
        pair = verdict.pair
        row: dict[str, Any] = {
            "prompt": pair.prompt,
            self.model_a: pair.a.response,
            self.model_b: pair.b.response,
            f"{self.model_a}_reward_score": pair.a.reward,
            f"{self.model_b}_reward_score": pair.b.reward,
            "winner": verdict.winner,
        }
        if verdict.comment is not None:
            row["comment"] = verdict.comment
        return row | {
            "status": verdict.status,
            "row": pair.row,
            "first": verdict.first,
            "order": verdict.order,
            "model_a": self.model_a,
            "model_b": self.model_b,
            "dataset": self.dataset,
            "judge": self.judge,
            "template": self.template,
            "replies": list(verdict.replies),
            "problem": verdict.problem,
            "requests": verdict.requests,
            "key": verdict.key,
        }


def contest_of(row: Mapping[str, Any]) -> Contest:
    """The contest that a record belongs to; KeyError, TypeError or ValueError where it is no verdict."""
    names = [row[name] for name in ("model_a", "model_b", "dataset", "judge", "template")]
    if not all(isinstance(name, str) for name in names):
        raise TypeError("a name is not text")
    if any("\0" in name for name in names):
        raise ValueError("a name that no file can have")
    return Contest(*names)


def verdict_of(row: Mapping[str, Any]) -> Verdict:
    """The verdict in a record; KeyError, TypeError, ValueError or OverflowError where it is none."""
    contest = contest_of(row)
    texts = [row["key"], row["prompt"], row[contest.model_a], row[contest.model_b], *row["replies"]]
    texts += [text for text in (row.get("comment"), row["problem"]) if text is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a text is none")
    answers = [
        Result(row["prompt"], row[model], finite(row[f"{model}_reward_score"]))
        for model in (contest.model_a, contest.model_b)
    ]
    known = (row["winner"], (None, *get_args(Winner))), (row["status"], get_args(Status)), (row["first"], ("A", "B"))
    if any(value not in allowed for value, allowed in (*known, (row["order"], get_args(Order)))):
        raise ValueError("no such verdict")
    if (row["status"] == "judged") != (row["winner"] is not None):
        raise ValueError("a winner without a verdict, or the other way round")
    return Verdict(
        key=row["key"],
        pair=Pair(int(row["row"]), row["prompt"], *answers),
        first=row["first"],
        order=row["order"],
        status=row["status"],
        winner=row["winner"],
        replies=tuple(row["replies"]),
        comment=row.get("comment"),
        problem=row["problem"],
        requests=int(row["requests"]),
    )


def parse_verdicts(rows: Iterable[Mapping[str, Any]], *, source: str) -> tuple[Contest | None, list[Verdict]]:
    """All verdicts of a file and the contest that they share, None where there is no row.

    Args:
        rows: the file's records.
        source: flag and path, for messages.
    Raises:
        UserError: a row is no verdict, or the rows are of several contests.
    """
    contest: Contest | None = None
    verdicts = []
    for number, row in enumerate(rows, start=1):
        try:
            found = contest_of(row)
            verdicts.append(verdict_of(row))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise UserError(f"{source}: row {number} is no verdict of gpt4-eval.py or human-eval.py") from error
        if contest is not None and found != contest:
            raise UserError(f"{source}: row {number} is of another comparison or judge than the rows before it")
        contest = found
    return contest, verdicts


def newest(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """The last verdict of each key: a question that failed may have been asked again later."""
    return list({verdict.key: verdict for verdict in verdicts}.values())


class VerdictFile:
    """The verdicts of one contest on disk."""

    def __init__(self, path: Path, contest: Contest, pairs: Sequence[Pair]) -> None:
        """Open or make the file.

        Raises:
            UserError: it is no verdict file, of another contest, or about answers that the models' files do not hold.
        """
        self.contest = contest
        self._file = AppendedFile(path, flag="output")
        try:
            found, self.verdicts = parse_verdicts(self._file.rows, source=f"--output {path}")
            if found is not None:
                self._check(found, path, pairs)
        except UserError:
            self._file.close()
            raise

    def _check(self, found: Contest, path: Path, pairs: Sequence[Pair]) -> None:
        if found != self.contest:
            raise UserError(
                f"--output {path} holds verdicts of {found.judge} on {found.model_a} and {found.model_b} "
                f"({found.dataset}), not of this comparison; name another file"
            )
        texts = {pair.row: pair.key("A", judge="", template="") for pair in pairs}
        for verdict in self.verdicts:
            pair = verdict.pair
            if pair.row in texts and texts[pair.row] != pair.key("A", judge="", template=""):
                raise UserError(
                    f"--output {path} holds verdicts on other answers than the models' files now hold (row "
                    f"{pair.row + 1}); name another file"
                )

    def append(self, verdict: Verdict) -> None:
        """Write a verdict through to the disk."""
        self._file.append(self.contest.to_row(verdict))
        self.verdicts.append(verdict)

    def drop_last(self) -> Verdict:
        """Take the last verdict back, and return it."""
        self._file.drop_last()
        return self.verdicts.pop()

    def __enter__(self) -> VerdictFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def winner_of(choice: str, first: Side) -> Winner:
    """The model behind a choice: A for the answer shown first, B for the second, E for a tie."""
    if choice == "E":
        return "Tie"
    return first if choice == "A" else other(first)

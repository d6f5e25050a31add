"""Comparing two models' answers pair by pair: which questions are missing, asking them, and summing up.

Nothing is asked twice: verdicts are on disk before the next one is taken, and a rerun asks only for what is missing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from dschat.answering.appended_file import write_whole
from dschat.errors import UserError
from dschat.judging.criteria import Criteria
from dschat.judging.judges import Answer, OpenAIJudge, Stopped
from dschat.judging.pairs import Pair, Side, made_by, other
from dschat.judging.tally import Summary, summarize
from dschat.judging.verdicts import (
    Contest,
    Order,
    Status,
    Verdict,
    VerdictFile,
    Winner,
    newest,
    winner_of,
)


@dataclass(frozen=True)
class Question:
    """A pair in one order, as a judge is to see it."""

    pair: Pair
    first: Side
    order: Order
    key: str


def questions(pairs: Sequence[Pair], contest: Contest, *, order: Order, seed: int) -> list[Question]:
    """Every question of a comparison.

    Args:
        pairs: the pairs.
        contest: the judge and its prompt, which keys depend on.
        order: both: each pair twice. random: once, the first side drawn from `seed` and the row. fixed: A first.
        seed: of the drawn sides; a row's side does not depend on the other rows.
    """
    return [
        Question(pair, first, order, pair.key(first, judge=contest.judge, template=contest.template))
        for pair in pairs
        for first in _first_sides(pair, order, seed)
    ]


def _first_sides(pair: Pair, order: Order, seed: int) -> tuple[Side, ...]:
    match order:
        case "both":
            return ("A", "B")
        case "random":
            return ("A" if random.Random(f"{seed}/{pair.row}").random() < 0.5 else "B",)
        case "fixed":
            return ("A",)


def missing(
    asked: Sequence[Question], verdicts: Sequence[Verdict], *, retry_unparsable: bool = False
) -> list[Question]:
    """The questions to ask.

    Args:
        asked: every question of the comparison.
        verdicts: what is known. What failed is asked again; what could not be read was paid for, and what was refused
            will be refused again.
        retry_unparsable: ask again for those two as well.
    """
    settled = {"judged"} if retry_unparsable else {"judged", "unparsable", "refused"}
    known = {verdict.key for verdict in newest(verdicts) if verdict.status in settled}
    return [question for question in asked if question.key not in known]


def judge_by_reward(question: Question) -> Verdict:
    """The reward model's verdict, from the scores that inference wrote: the higher one wins."""
    a, b = question.pair.a.reward, question.pair.b.reward
    if a is None or b is None:
        return _verdict(question, status="failed", problem="an answer of this pair has no reward")
    return _verdict(question, winner="Tie" if a == b else "A" if a > b else "B")


class RunEnded(Exception):
    """A verdict that could not be had, for a reason that every other question would meet too."""

    def __init__(self, verdict: Verdict, reason: UserError) -> None:
        super().__init__(str(reason))
        self.verdict, self.reason = verdict, reason


def judge_by_model(question: Question, *, judge: OpenAIJudge, criteria: Criteria) -> Verdict:
    """A language model's verdict. Two equal answers are a tie and nobody is asked.

    Raises:
        RunEnded: the judge answers no question.
        BudgetUsedUp, Stopped: see `OpenAIJudge.ask`.
    """
    pair = question.pair
    if pair.a.response == pair.b.response:
        return _verdict(question, winner="Tie", comment="the answers are the same")
    answer = judge.ask(
        criteria,
        prompt=pair.prompt,
        first=pair.answer(question.first).response,
        second=pair.answer(other(question.first)).response,
    )
    verdict = _from_answer(question, answer)
    if answer.ends_run is not None:
        raise RunEnded(verdict, answer.ends_run)
    return verdict


def _from_answer(question: Question, answer: Answer) -> Verdict:
    reply = answer.reply
    return Verdict(
        question.key, question.pair, question.first, question.order, status=answer.status,
        winner=winner_of(reply.choice, question.first) if reply else None, replies=answer.replies,
        comment=reply.comment if reply else None, problem=answer.problem, requests=answer.requests,
    )  # fmt: skip


def _verdict(
    question: Question, *, winner: Winner | None = None, status: Status = "judged", comment: str | None = None,
    problem: str | None = None,
) -> Verdict:  # fmt: skip
    return Verdict(
        question.key, question.pair, question.first, question.order, status=status, winner=winner, comment=comment,
        problem=problem,
    )  # fmt: skip


def ask_all(
    asked: Sequence[Question],
    ask: Callable[[Question], Verdict],
    record: Callable[[Verdict], None],
    *,
    concurrency: int,
    stop: Callable[[], None],
) -> None:
    """Ask several questions at a time, recording each verdict as it comes.

    Where something ends the run (a used-up budget, a refused key, Ctrl-C, a fault of our own), requests under way are
    waited for and recorded, because they are paid for; then it is raised.

    Args:
        asked: the questions.
        ask: called in threads.
        record: called in this thread.
        concurrency: most questions under way.
        stop: called once when the run ends early.
    """
    left: Iterator[Question] = iter(asked)
    ending: BaseException | None = None
    with ThreadPoolExecutor(max_workers=concurrency) as pool:
        running: set[Future[Verdict]] = set()
        while True:
            while ending is None and len(running) < concurrency:
                question = next(left, None)
                if question is None:
                    break
                running.add(pool.submit(ask, question))
            if not running:
                break
            try:
                done, running = wait(running, return_when=FIRST_COMPLETED)
            except KeyboardInterrupt as error:
                if ending is not None:
                    raise
                ending, done = error, set()
                stop()
            for future in done:
                failure = _record(future, record)
                if failure is not None and ending is None:
                    ending = failure
                    stop()
    if ending is not None:
        raise ending


def _record(future: Future[Verdict], record: Callable[[Verdict], None]) -> Exception | None:
    """Record a verdict; what ends the run is returned."""
    error = future.exception()
    match error:
        case None:
            record(future.result())
        case RunEnded(verdict=verdict, reason=reason):
            record(verdict)
            return reason
        case Stopped():  # by what ends the run in another thread
            return None
        case Exception():
            return error
    return None


def summary_path(output: Path) -> Path:
    """Where the numbers of a verdict file are written."""
    return output.with_name(f"{output.name}.summary.json")


def write_summary(file: VerdictFile, pairs: Sequence[Pair], output: Path) -> Summary:
    """Sum up the verdicts on the given pairs and write the numbers beside the verdict file."""
    rows = {pair.row for pair in pairs}
    contest = file.contest
    summary = summarize(
        [verdict for verdict in file.verdicts if verdict.pair.row in rows],
        model_a=contest.model_a,
        model_b=contest.model_b,
        dataset=contest.dataset,
        judge=contest.judge,
        num_pairs=len(pairs),
        made_by_a=made_by(Path(contest.model_a)),
        made_by_b=made_by(Path(contest.model_b)),
    )
    write_whole(summary_path(output), json.dumps(summary.to_json(), indent=2) + "\n")
    return summary

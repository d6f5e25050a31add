"""Which questions are asked, how many at a time, and what a run that ends early leaves."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from dschat.answering.results import Result
from dschat.errors import UserError
from dschat.judging.pairs import Pair
from dschat.judging.pairwise import Question, ask_all, judge_by_reward, missing, questions
from dschat.judging.verdicts import Contest, Verdict

CONTEST = Contest("a", "b", "summarize", "judge", "t")
PAIRS = [Pair(row, f"p{row}", Result("p", "x", 1.0), Result("p", "y", float(row))) for row in range(40)]


def test_orders_are_both_one_drawn_per_row_or_the_first() -> None:
    both = questions(PAIRS, CONTEST, order="both", seed=0)
    assert [question.first for question in both[:4]] == ["A", "B", "A", "B"]
    assert len({question.key for question in both}) == 80
    drawn = questions(PAIRS, CONTEST, order="random", seed=0)
    assert 10 < sum(question.first == "A" for question in drawn) < 30
    # a row's side does not depend on the other rows
    assert questions(PAIRS[7:9], CONTEST, order="random", seed=0) == drawn[7:9]
    assert {question.first for question in questions(PAIRS, CONTEST, order="fixed", seed=0)} == {"A"}


def test_what_failed_is_asked_again_and_what_was_paid_for_is_not() -> None:
    asked = questions(PAIRS[:3], CONTEST, order="fixed", seed=0)
    verdicts = [judge_by_reward(question) for question in asked]
    verdicts[0] = replace(verdicts[0], status="failed", winner=None)
    verdicts[1] = replace(verdicts[1], status="unparsable", winner=None)
    assert missing(asked, verdicts) == [asked[0]]


def test_the_higher_reward_wins() -> None:
    asked = questions(PAIRS[:3], CONTEST, order="fixed", seed=0)
    assert [judge_by_reward(question).winner for question in asked] == ["A", "Tie", "B"]
    unknown = replace(asked[0], pair=replace(PAIRS[0], a=Result("p", "x", None)))
    assert judge_by_reward(unknown).status == "failed"


def test_so_many_questions_are_under_way_and_an_error_waits_for_them() -> None:
    asked = questions(PAIRS, CONTEST, order="fixed", seed=0)
    running, most, lock = 0, 0, threading.Lock()
    all_three = threading.Barrier(3, timeout=30)

    def ask(question: Question) -> Verdict:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        if question.pair.row < 3:
            all_three.wait()
        with lock:
            running -= 1
        if question.pair.row == 2:
            raise UserError("the key is refused")
        return judge_by_reward(question)

    recorded: list[Verdict] = []
    stopped: list[bool] = []
    with pytest.raises(UserError, match="the key is refused"):
        ask_all(asked, ask, recorded.append, concurrency=3, stop=lambda: stopped.append(True))
    assert most == 3
    assert {0, 1} <= {verdict.pair.row for verdict in recorded}
    assert len(recorded) < len(asked) - 1
    assert stopped == [True]

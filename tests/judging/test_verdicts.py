"""Verdicts on disk: records in the published fields, read back as they were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dschat.answering.results import Result
from dschat.errors import UserError
from dschat.judging.pairs import Pair
from dschat.judging.verdicts import Contest, Verdict, VerdictFile, newest, parse_verdicts, verdict_of, winner_of

CONTEST = Contest("a.jsonl", "b.jsonl", "summarize", "judge", "12345678")
PAIR = Pair(0, "post", Result("post", "left", 0.5), Result("post", "right", None))
VERDICT = Verdict(
    PAIR.key("A", judge="judge", template="12345678"), PAIR, "A", "both", "judged", "B", ("B",), "why", None, 2
)


def test_a_record_has_the_published_fields_and_reads_back() -> None:
    row = CONTEST.to_row(VERDICT)
    published = {"prompt", "a.jsonl", "b.jsonl", "a.jsonl_reward_score", "b.jsonl_reward_score", "winner", "comment"}
    assert published <= row.keys()
    assert (row["a.jsonl"], row["a.jsonl_reward_score"], row["winner"]) == ("left", 0.5, "B")
    assert verdict_of(row) == VERDICT


@pytest.mark.parametrize("change", [{"winner": "C"}, {"status": "?"}, {"first": 1}, {"order": "any"}, {"judge": None}])
def test_what_is_no_verdict_is_refused_with_its_row(change: dict[str, object]) -> None:
    row = CONTEST.to_row(VERDICT)
    with pytest.raises(UserError, match=r"--output x: row 2 is no verdict of gpt4-eval\.py or human-eval\.py"):
        parse_verdicts([row, {**row, **change}], source="--output x")


def test_verdicts_of_two_contests_do_not_mix(tmp_path: Path) -> None:
    other = replace(CONTEST, judge="another")
    with pytest.raises(UserError, match="row 2 is of another comparison or judge"):
        parse_verdicts([CONTEST.to_row(VERDICT), other.to_row(VERDICT)], source="x")
    path = tmp_path / "verdicts.jsonl"
    with VerdictFile(path, CONTEST, [PAIR]) as file:
        file.append(VERDICT)
    with pytest.raises(UserError, match=r"holds verdicts of judge on a\.jsonl and b\.jsonl"):
        VerdictFile(path, other, [PAIR])
    changed = replace(PAIR, a=Result("post", "changed", 0.5))
    with pytest.raises(UserError, match=r"on other answers than the models' files now hold \(row 1\)"):
        VerdictFile(path, CONTEST, [changed])
    with VerdictFile(path, CONTEST, [PAIR]) as file:
        assert file.verdicts == [VERDICT]
        assert file.drop_last() == VERDICT
    assert path.read_text() == ""


def test_the_newest_verdict_of_a_question_counts() -> None:
    failed = replace(VERDICT, status="failed", winner=None)
    assert newest([failed, VERDICT]) == [VERDICT]


@pytest.mark.parametrize(("choice", "first", "winner"), [("A", "B", "B"), ("B", "B", "A"), ("E", "A", "Tie")])
def test_a_choice_means_the_model_shown_in_that_place(choice: str, first: str, winner: str) -> None:
    assert winner_of(choice, first) == winner

"""Which held-out programming problems are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.apps_options import parse_apps_options
from dschat.answering.problems import load_problems
from dschat.errors import UserError
from tests.answering.helpers import write_posts


def options(folder: Path, *more: str):
    words = f"--proj-path {folder} --dataset tiny-apps --model m --data-output-path {folder}/cache"
    return parse_apps_options([*words.split(), *more])


def test_the_first_problems_are_those_of_more(tmp_path: Path) -> None:
    some = load_problems(options(tmp_path, "--num-samples", "5"))
    more = load_problems(options(tmp_path, "--num-samples", "20"))
    assert some == more[:5]
    assert len({problem.prompt for problem in more}) == len({problem.identity for problem in more}) == 20
    assert {problem.difficulty for problem in more} <= {"introductory", "interview", "competition"}
    for problem in more:
        assert problem.prompt.endswith(problem.cue)
        assert problem.chosen and problem.tests["inputs"]


def test_data_without_tests_is_refused(tmp_path: Path) -> None:
    write_posts(tmp_path / "posts")
    found = options(tmp_path, "--dataset", "summarize", "--data-path", str(tmp_path / "posts"))
    with pytest.raises(UserError, match="--dataset summarize has no tests to run; pass apps or tiny-apps"):
        load_problems(found)

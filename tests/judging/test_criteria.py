"""Questions to a judge, and its replies."""

from __future__ import annotations

import pytest

from dschat.errors import UserError
from dschat.judging.criteria import EMPTY_ANSWER, find_criteria


@pytest.mark.parametrize("dataset", ["summarize", "openai/summarize_from_feedback", "hh-rlhf", "webgpt", "pydoc-tldr"])
def test_texts_are_put_in_once_whatever_they_hold(dataset: str) -> None:
    criteria = find_criteria(dataset)
    question = criteria.question(prompt=" {first} ", first="{second}", second="  ")
    assert "\n{first}\n" in question and "\n{second}\n" in question and f"\n{EMPTY_ANSWER}\n" in question
    assert question.count(EMPTY_ANSWER) == 1


def test_another_wording_has_another_name() -> None:
    names = {find_criteria(dataset).name for dataset in ("summarize", "hh-rlhf", "webgpt")}
    assert len(names) == 3
    assert find_criteria("pydoc-tldr").name == find_criteria("summarize").name
    with pytest.raises(UserError, match="--dataset apps is unknown"):
        find_criteria("apps")

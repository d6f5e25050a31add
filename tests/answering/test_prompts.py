"""Which held-out rows are answered."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.options import parse_options
from dschat.answering.prompts import find_dataset, load_prompts
from dschat.errors import UserError
from tests.answering.helpers import write_posts


def options(folder: Path, *more: str):
    words = f"--proj-path {folder} --dataset summarize --model m --reward-model r --data-path {folder}/posts"
    return parse_options([*words.split(), *more])


def test_rows_are_the_same_ones_and_the_first_are_those_of_more(tmp_path: Path) -> None:
    write_posts(tmp_path / "posts")
    every = load_prompts(options(tmp_path, "--num-samples", "1000"))
    some = load_prompts(options(tmp_path, "--num-samples", "5"))
    assert some == every[:5]
    assert len({row.prompt for row in every}) == len(every) == 23
    assert all(row.prompt.endswith(row.cue) and row.cue for row in every)
    assert len(load_prompts(options(tmp_path, "--num-samples", "1000", "--keep-articles"))) == 24


def test_an_unknown_name_is_no_path(tmp_path: Path) -> None:
    found = parse_options(f"--proj-path {tmp_path} --dataset sumarize --model m --reward-model r".split())
    with pytest.raises(UserError, match="--dataset sumarize is unknown; did you mean summarize"):
        find_dataset(found)

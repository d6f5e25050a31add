"""The soak script says that kills were survived where they were, and that they were not where state is forgotten."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.errors import UserError
from soak.file_operations import can_watch
from soak.forks import Forks
from soak.main import CHANGES, MOMENTS, PLACES, read_options, report, run, soak


def test_kills_are_survived(
    forks: Forks, paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = "--stages sft --kills 1 --places" + (" --changes" if can_watch() else "")
    found = soak(read_options([*words.split(), "--stride", "45"]), forks, paths, tmp_path / "run")
    tallies = found["sft"]
    assert tallies[MOMENTS].tried == 1
    assert tallies[PLACES].tried == 2
    assert not can_watch() or tallies[CHANGES].tried == 4
    assert all(tally.survived == tally.tried for tally in tallies.values())
    assert report(found)
    # only what they are compared with is left
    assert sorted(path.name for path in (tmp_path / "run/sft").iterdir()) == ["begun", "whole"]


def test_kills_that_cost_something_are_reported(
    forks: Forks, paths: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = read_options("--stages sft --places --stride 40".split())
    forgetful = "tests.resume.mutations:forget_the_torch_generator"
    found = soak(options, forks, paths, tmp_path / "run", setup=forgetful)
    assert (found["sft"][PLACES].survived, found["sft"][PLACES].tried) == (0, 2)
    assert not report(found)
    assert "sft, killed at train.backward (1) on rank 0: other metrics and weights than without the kill" in caplog.text
    assert (tmp_path / "run/sft/at_train.backward_(1)_on_rank_0/metrics.jsonl").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [("", "nothing to do"), ("--kills -1", "--kills must be at least 0"), ("--kills 1 --ranks 0", "--ranks must")],
)
def test_mistakes_are_one_sentence(words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        run(read_options(words.split()))

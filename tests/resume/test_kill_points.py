"""A run that is killed at every place where it touches a file or changes a weight ends as if nothing had happened."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from dschat.runtime.store import list_states
from tests.resume.forks import Forks, numbers, weights
from tests.resume.runs import STEPS, job

KILLED = -9
TOTAL = 36
"""Steps of a run: more than there are places, of which not every one costs a step."""


def points_of_a_step(places: tuple[str, ...]) -> list[tuple[str, int]]:
    """Every place that a process passes, with how often it has passed it by then."""
    passed: Counter[str] = Counter()
    points = []
    for place in places:
        passed[place] += 1
        points.append((place, passed[place]))
    return points


@pytest.mark.parametrize("step", STEPS)
def test_killed_at_every_place_one_after_the_other(
    step: str, forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    steps = f"--max_steps {TOTAL}"
    whole = forks.run(job(step, paths, tmp_path / "whole", steps))
    assert whole.status == 0, whole.text
    killed = tmp_path / "killed"
    begun = forks.run(job(step, paths, killed, steps), fault="loop.step_done:4")
    assert begun.status == KILLED, begun.text
    resumed = job(step, paths, killed, f"{steps} --resume auto")
    # one step of a resumed process, up to where the next begins to save
    cycle = forks.run(resumed, fault="loop.step_done:2")
    points = points_of_a_step(cycle.places)
    assert len(points) >= 25
    done = 4
    for place, count in points:
        ended = forks.run(resumed, fault=f"{place}:{count}")
        assert ended.status == KILLED, (place, count, ended.text)
        assert ended.places[-1] == place
        newest = list_states(killed / "state")[0][0]
        assert newest >= done, (place, count)
        done = newest
    assert done < TOTAL
    finished = forks.run(resumed)
    assert finished.status == 0, finished.text
    assert numbers(killed) == numbers(tmp_path / "whole")
    assert weights(killed) == weights(tmp_path / "whole")
    assert [path.name for path in killed.rglob(".tmp-*")] == []
    assert [number for number, _ in list_states(killed / "state")] == [TOTAL, TOTAL - 1]

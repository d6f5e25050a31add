"""A run that is killed at every place where it touches a file or changes a weight ends as if nothing had happened.

`scripts/soak.py` looks at each kill by itself, and at many more.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.runtime.store import list_states
from soak.file_operations import can_watch
from soak.forks import Forks, numbers, weights
from soak.runs import STEPS, job
from soak.trials import KILLED, numbered

TOTAL = 36
"""Steps of a run: more than there are kills that cost one."""
CHANGES_STRIDE = 25
"""Of the changes of files, which are named in no place, so many are passed over."""


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
    cycle = forks.run(resumed, fault="loop.step_done:2", operation=0 if can_watch() else None, watched=killed)
    points = numbered(cycle.places)
    assert len(points) >= 25
    done = 4
    for place, count in points:
        ended = forks.run(resumed, fault=f"{place}:{count}")
        assert ended.status == KILLED, (place, count, ended.text)
        assert ended.places[-1] == place
        newest = list_states(killed / "state")[0][0]
        assert newest >= done, (place, count)
        done = newest
    for number in range(1, len(cycle.changes), CHANGES_STRIDE):
        ended = forks.run(resumed, operation=number, watched=killed)
        assert ended.status == KILLED, (number, ended.text)
        assert len(ended.changes) == number
        newest = list_states(killed / "state")[0][0]
        assert newest >= done, ended.changes[-1]
        done = newest
    assert done < TOTAL
    finished = forks.run(resumed)
    assert finished.status == 0, finished.text
    assert numbers(killed) == numbers(tmp_path / "whole")
    assert weights(killed) == weights(tmp_path / "whole")
    assert [path.name for path in killed.rglob(".tmp-*")] == []
    assert [number for number, _ in list_states(killed / "state")] == [TOTAL, TOTAL - 1]

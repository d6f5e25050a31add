"""Kills of one stage's run; each is followed by a resumption that must end like the run that nobody killed."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dschat.runtime import faults
from dschat.runtime.store import list_states
from soak.forks import Ended, Forks, numbers, weights
from soak.runs import job
from toys.jobs import Job

KILLED = -9
TOTAL = 6
"""Steps of a run, each of which is saved."""
BEGUN = 4
"""A run that others go on from was killed before it saved this step."""
LONGEST_WAIT = 30
"""Seconds that a rank waits for one that was killed."""


@dataclass(frozen=True)
class Kill:
    """When one rank is killed: at a place, before a change of a file, or after some seconds."""

    name: str
    """For reports."""
    victim: int = 0
    """Its rank."""
    fault: str = ""
    """See `dschat.runtime.faults`."""
    operation: int | None = None
    """Number of the change, from 1."""
    seconds: float | None = None
    """From the start of the process."""


class Trials:
    """All kills of one stage."""

    def __init__(
        self, forks: Forks, stage: str, paths: dict[str, str], folder: Path, *, ranks: int = 1, zero_stage: int = 0,
        setup: str = "",
    ) -> None:  # fmt: skip
        """Run it once without a kill, and once to where most trials go on from.

        Args:
            forks: run the jobs.
            stage: sft, reward or ppo.
            paths: toy models and data.
            folder: to work in; made here.
            ranks: how many processes train together.
            zero_stage: of all models in training.
            setup: as in `Forks.run`, for the resumed runs.
        """
        self._forks, self._stage, self._paths = forks, stage, paths
        self._folder, self._ranks, self._zero_stage = folder, ranks, zero_stage
        self._setup = setup
        folder.mkdir(parents=True)
        started = time.perf_counter()
        whole = self._run(folder / "whole")
        self._seconds = time.perf_counter() - started
        assert set(whole.statuses) == {0}, whole.text
        self._expected = everything(folder / "whole")
        begun = self._run(folder / "begun", fault=f"loop.step_done:{BEGUN}")
        assert set(begun.statuses) == {KILLED}, begun.text

    def at_places(self) -> list[Kill]:
        """At every named place of every rank, up to the second save of a resumed process."""
        return [
            Kill(f"at {place} ({count})", victim, fault=f"{place}:{count}")
            for victim in range(self._ranks)
            for place, count in numbered(self._one_save(victim).places)
        ]

    def before_changes(self) -> list[Kill]:
        """Before every change of a file of every rank, up to the second save of a resumed process."""
        return [
            Kill(f"before {change} ({number})", victim, operation=number)
            for victim in range(self._ranks)
            for number, change in enumerate(self._one_save(victim).changes, start=1)
        ]

    def at_random(self, count: int, generator: random.Random) -> list[Kill]:
        """At moments of the whole run, all equally likely."""
        moments = ((generator.randrange(self._ranks), generator.uniform(0, self._seconds)) for _ in range(count))
        return [Kill(f"after {seconds:.3f} s", victim, seconds=seconds) for victim, seconds in moments]

    def failure(self, kill: Kill) -> str | None:
        """What the kill has cost, None if nothing; what it left is then deleted."""
        name = f"{kill.name} on rank {kill.victim}".replace("/", "-").replace(" ", "_")
        out = self._folder / name
        ended = self._killed(kill, out)
        if ended.statuses[kill.victim] != KILLED:
            return f"it was not killed, but ended with {ended.statuses}:\n{ended.text}"
        lost = last_step(out) - newest_state(out)
        resumed = self._run(out, resume=True)
        if set(resumed.statuses) != {0}:
            return f"it could not go on, and ended with {resumed.statuses}:\n{resumed.text}"
        if lost > 1:
            return f"{lost} steps had to be done again although every one is saved"
        different = [
            what for what, (mine, expected) in zip(
                ("metrics", "weights"), zip(everything(out), self._expected, strict=True), strict=True
            ) if mine != expected
        ]  # fmt: skip
        if different:
            return f"other {' and '.join(different)} than without the kill"
        litter = [str(path.relative_to(out)) for path in out.rglob(".tmp-*")]
        if litter:
            return f"it left {', '.join(litter)}"
        shutil.rmtree(out)
        return None

    def _killed(self, kill: Kill, out: Path) -> Ended:
        if kill.seconds is None:
            shutil.copytree(self._folder / "begun", out, symlinks=True)
            return self._run(out, resume=True, kill=kill)
        seconds = kill.seconds
        while True:
            shutil.rmtree(out, ignore_errors=True)
            ended = self._run(out, resume=True, kill=Kill(kill.name, kill.victim, seconds=seconds))
            if set(ended.statuses) != {0}:
                return ended
            seconds /= 2  # faster than the run that was timed: it was over before

    def _one_save(self, victim: int) -> Ended:
        out = self._folder / "measured"
        shutil.copytree(self._folder / "begun", out, symlinks=True)
        ended = self._run(out, resume=True, kill=Kill("", victim, fault="loop.step_done:2", operation=0))
        assert ended.statuses[victim] == KILLED, ended.text
        shutil.rmtree(out)
        return ended

    def _run(self, out: Path, *, fault: str = "", resume: bool = False, kill: Kill | None = None) -> Ended:
        kill = kill or Kill("", fault=fault)
        environment = {faults.RANK: str(kill.victim)} if kill.fault and not fault else {}
        return self._forks.run(
            self._job(out, resume=resume), fault=kill.fault, setup=self._setup if resume else "",
            environment=environment, ranks=self._ranks, victim=kill.victim, seconds=kill.seconds,
            operation=kill.operation, watched=out,
        )  # fmt: skip

    def _job(self, out: Path, *, resume: bool) -> Job:
        models = ("actor_", "critic_") if self._stage == "ppo" else ("",)
        zero = " ".join(f"--{model}zero_stage {self._zero_stage}" for model in models)
        go_on = "--resume auto" if resume else ""
        words = f"--max_steps {TOTAL} --dist_timeout {LONGEST_WAIT} {zero} {go_on}"
        return job(self._stage, self._paths, out, words)


def everything(folder: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Metrics without times, and digests of the weights, of a finished run."""
    return numbers(folder), weights(folder)


def numbered(places: Sequence[str]) -> list[tuple[str, int]]:
    """Every place that a process passes, with how often it has passed it by then."""
    passed: Counter[str] = Counter()
    points = []
    for place in places:
        passed[place] += 1
        points.append((place, passed[place]))
    return points


def last_step(folder: Path) -> int:
    """The last step whose numbers were written, 0 before."""
    path = folder / "metrics.jsonl"
    # what follows the last end of a line was torn
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


def newest_state(folder: Path) -> int:
    """Step of the newest saved state, 0 before."""
    return max((step for step, _ in list_states(folder / "state")), default=0)

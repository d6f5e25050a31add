"""The client of `fork_server`, and what the tests of resuming compare."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dschat.runtime import faults
from toys.jobs import Job, read_metrics

SCRIPTS = Path(__file__).resolve().parents[1]
TIMES = {
    *("step_seconds", "run_seconds", "tokens_per_second"),
    *("generation_seconds", "scoring_seconds", "penalty_seconds", "training_seconds"),
    *("generation_tokens_per_second", "scoring_tokens_per_second", "training_tokens_per_second"),
}
"""Metrics that differ between any two runs; all others must be equal to the last bit."""


@dataclass(frozen=True)
class Ended:
    """How a job ended."""

    statuses: tuple[int, ...]
    """Of every rank: exit status, or minus the number of the signal."""
    text: str
    """All that the ranks printed, one after the other."""
    places: tuple[str, ...]
    """The fault places that the victim passed, in order; the last is where it was killed, if at one."""
    changes: tuple[str, ...] = ()
    """The changes of files that the victim came to, where it was watched; the last is the one it was killed before."""

    @property
    def status(self) -> int:
        """Of the first rank."""
        return self.statuses[0]


class Forks:
    """Runs jobs in forks of one warm process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
        environment |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(SCRIPTS), os.environ.get("PYTHONPATH", "")]))
        self._server = subprocess.Popen(
            [sys.executable, "-m", "soak.fork_server"], cwd=SCRIPTS.parent, env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "server.log").open("w"),
        )  # fmt: skip
        assert self._answer() == "ready", (folder / "server.log").read_text()

    def run(
        self,
        job: Job,
        *,
        fault: str = "",
        setup: str = "",
        environment: Mapping[str, str] | None = None,
        ranks: int = 1,
        victim: int = 0,
        seconds: float | None = None,
        operation: int | None = None,
        watched: Path = Path(),
    ) -> Ended:
        """Run a job to its end.

        Args:
            job: a step and its command line.
            fault: see `dschat.runtime.faults`.
            setup: `module:function` to call in the process before the job.
            environment: more variables of the process.
            ranks: how many processes train together, without a launcher to end the others when one fails.
            victim: the rank that is killed or watched; its places are recorded.
            seconds: kill the victim after so long.
            operation: kill it before the change of this number, from 1, below `watched`; 0: only record the changes.
            watched: a folder.
        """
        log, trace = self._folder / "log", self._folder / "trace"
        for old in self._folder.glob(f"{trace.name}-*"):
            old.unlink()
        request = {
            "job": dataclasses.asdict(job), "environment": {faults.FAULT: fault, **(environment or {})}, "setup": setup,
            "log": str(log), "trace": str(trace), "ranks": ranks, "victim": victim, "seconds": seconds,
            "operation": operation, "watched": str(watched),
        }  # fmt: skip
        assert self._server.stdin is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._answer())
        of_victim = Path(f"{trace}-{victim}")
        places = tuple(of_victim.read_text().splitlines()) if of_victim.exists() else ()
        texts = [Path(f"{log}-{number}").read_text(errors="replace") for number in range(ranks)]
        return Ended(tuple(answer["statuses"]), "\n".join(texts), places, tuple(answer["changes"]))

    def close(self) -> None:
        """End the server."""
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(timeout=60)

    def _answer(self) -> str:
        assert self._server.stdout is not None
        return self._server.stdout.readline().strip()


def numbers(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl without the times."""
    return [{name: value for name, value in line.items() if name not in TIMES} for line in read_metrics(folder)]


def weights(folder: Path) -> dict[str, str]:
    """SHA-256 of every exported file of weights, by its place in the run's folder."""
    paths = sorted(folder.glob("step*/**/model.safetensors"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}

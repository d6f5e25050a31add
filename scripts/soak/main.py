"""Kills training runs with SIGKILL, resumes them, and compares what they leave with a run that nobody killed.

    python scripts/soak.py --kills 30                        at 30 random moments of each stage
    python scripts/soak.py --places --changes                at every named place; before every change of a file
    python scripts/soak.py --places --ranks 2 --zero_stage 3

Toy models on a CPU, six steps of each stage (SFT, reward model, PPO), each of them saved. A kill is survived if the
resumed run ends with the same metrics.jsonl but for times, the same weights to the last bit, at most one step done
again, and no half-written file. The exit status is 1 if any was not.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dschat.answering.console import quiet_transformers
from dschat.errors import UserError
from dschat.runtime.logging import set_up_logging, show_table, step_progress
from soak.file_operations import can_watch
from soak.forks import Forks
from soak.runs import STEPS
from soak.trials import Kill, Trials
from toys.jobs import make_folders

logger = logging.getLogger("dschat.soak")

MOMENTS, PLACES, CHANGES = "at random moments", "at named places", "before changes of files"


@dataclass
class Tally:
    """Kills of one kind in one stage."""

    tried: int = 0
    survived: int = 0

    def __str__(self) -> str:
        return f"{self.survived} / {self.tried}"


def soak(
    options: argparse.Namespace, forks: Forks, paths: dict[str, str], folder: Path, *, setup: str = ""
) -> dict[str, dict[str, Tally]]:
    """Kill and resume; tallies by stage and kind.

    Args:
        options: the command line.
        forks: run the jobs.
        paths: toy models and data.
        folder: to work in; what failed is left there.
        setup: `module:function` to call in every resumed process.
    """
    found = {}
    for stage in options.stages:
        trials = Trials(
            forks, stage, paths, folder / stage, ranks=options.ranks, zero_stage=options.zero_stage,
            setup=setup,
        )  # fmt: skip
        found[stage] = _kill_all(stage, chosen_kills(options, trials), trials)
    return found


def chosen_kills(options: argparse.Namespace, trials: Trials) -> Mapping[str, Sequence[Kill]]:
    """The kills of one stage that the command line asks for, by kind."""
    kinds: dict[str, Callable[[], Sequence[Kill]]] = {}
    if options.places:
        kinds[PLACES] = lambda: trials.at_places()[:: options.stride]
    if options.changes:
        kinds[CHANGES] = lambda: trials.before_changes()[:: options.stride]
    if options.kills:
        kinds[MOMENTS] = lambda: trials.at_random(options.kills, random.Random(options.seed))
    return {kind: kills() for kind, kills in kinds.items()}


def _kill_all(stage: str, kinds: Mapping[str, Sequence[Kill]], trials: Trials) -> dict[str, Tally]:
    tallies = {kind: Tally() for kind in kinds}
    done = 0
    with step_progress(sum(map(len, kinds.values())), f"kills of {stage}") as progress:
        for kind, kills in kinds.items():
            for kill in kills:
                started = time.perf_counter()
                failure = trials.failure(kill)
                tallies[kind].tried += 1
                tallies[kind].survived += failure is None
                if failure is not None:
                    logger.error("%s, killed %s on rank %d: %s", stage, kill.name, kill.victim, failure)
                done += 1
                survived = sum(tally.survived for tally in tallies.values())
                numbers = {"step_seconds": time.perf_counter() - started, "survived": survived}
                progress.advance(done, numbers, ("survived",))
    return tallies


def report(found: Mapping[str, Mapping[str, Tally]]) -> bool:
    """Show the table; whether all kills were survived."""
    kinds = list(next(iter(found.values())))
    rows = [[stage, *(str(tallies[kind]) for kind in kinds)] for stage, tallies in found.items()]
    show_table("kills: survived / tried", ["stage", *kinds], rows)
    return all(tally.survived == tally.tried for tallies in found.values() for tally in tallies.values())


def run(options: argparse.Namespace) -> None:
    """Prepare, kill, report."""
    set_up_logging()
    quiet_transformers()
    for flag, least in (("kills", 0), ("stride", 1), ("ranks", 1)):
        if getattr(options, flag) < least:
            raise UserError(f"--{flag} must be at least {least}, got {getattr(options, flag)}")
    if not (options.kills or options.places or options.changes):
        raise UserError("there is nothing to do: pass --kills, --places or --changes")
    if options.changes and not can_watch():
        raise UserError("--changes needs Linux 5.8 or newer on x86-64 or 64-bit Arm; leave it out")
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    for name in ("models", "forks"):
        (folder / name).mkdir()
    paths = {**make_folders(folder / "models"), "cache": str(folder / "cache")}
    forks = Forks(folder / "forks")
    try:
        found = soak(options, forks, paths, folder)
    finally:
        forks.close()
    if options.output:
        tallies = {stage: {kind: asdict(tally) for kind, tally in kinds.items()} for stage, kinds in found.items()}
        options.output.write_text(json.dumps(tallies, indent=1) + "\n")
    if not report(found):
        logger.error("what was not survived lies in %s", folder)
        sys.exit(1)
    shutil.rmtree(folder)


def read_options(words: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STEPS, default=list(STEPS), help="default: all three")
    parser.add_argument("--kills", type=int, default=0, help="at random moments of the whole run, in each stage")
    parser.add_argument(
        "--places", action="store_true", help="one at each named place of a save (dschat/runtime/faults)"
    )
    parser.add_argument(
        "--changes", action="store_true", help="one before each of their system calls that changes a file"
    )
    parser.add_argument("--stride", type=int, default=1, help="take every so manieth of --places and --changes")
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together; one of them is killed")
    parser.add_argument("--zero_stage", type=int, choices=range(4), default=0, help="of the trained models")
    parser.add_argument("--seed", type=int, default=0, help="of the random moments (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file for the table")
    return parser.parse_args(words)


def main() -> None:
    """Read the command line, then kill and resume."""
    run(read_options(sys.argv[1:]))

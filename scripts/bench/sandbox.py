"""How fast the code sandbox runs small programs: forked from a warm interpreter, and in a fresh one for each.

    python scripts/bench/sandbox.py
    python scripts/bench/sandbox.py --programs 2000 --output sandbox.json

Latency is that of one client which waits for every verdict. Throughput has one sandbox per core, all busy. A fresh
interpreter is a sandbox that is started, runs one program and is closed, numpy included like the warm one's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from dschat.code_execution.records import Execution, Job, Status
from dschat.code_execution.rungs import Rung, bubblewrap, landlock, unsandboxed
from dschat.code_execution.sandbox import ZygoteSandbox
from dschat.code_execution.spare_user import SpareUser, can_switch_user
from dschat.code_execution.zygote_process import SandboxFault
from measure import environment

RUNGS = {"bwrap": bubblewrap, "landlock": landlock, "none": unsandboxed}
JOB = Job("n = int(input())\nprint(sum(map(int, input().split())), np.arange(n).sum())", stdin="3\n1 2 3\n")
EXPECTED = b"6 3\n"
FRESH_SHARE = 10  # a fresh interpreter takes about so many times as long

Runner = Callable[[], Execution]


@dataclass(frozen=True)
class Result:
    """One line of the table; times in milliseconds."""

    rung: str
    interpreter: str
    """Warm or fresh."""
    description: str
    programs: int
    median_milliseconds: float
    p99_milliseconds: float
    cpu_milliseconds: float
    """Of the program's own process, median; a fresh interpreter's start is not in it."""
    programs_per_second_per_core: float
    workers: int


def warm(rung: Rung, resources: ExitStack) -> Runner:
    """Programs run in forks of one interpreter."""
    sandbox = resources.enter_context(ZygoteSandbox(rung))
    return lambda: sandbox.run(JOB)


def fresh(rung: Rung, resources: ExitStack) -> Runner:
    """Each program has a sandbox and an interpreter of its own."""

    def run() -> Execution:
        with ZygoteSandbox(rung) as sandbox:
            return sandbox.run(JOB)

    return run


def measure(name: str, interpreter: str, *, programs: int, workers: int) -> Result:
    """Latency with one client, then throughput with several."""
    make = {"warm": warm, "fresh": fresh}[interpreter]
    with ExitStack() as resources:
        rungs = [RUNGS[name](_spare_user(resources)) for _ in range(workers)]
        description = resources.enter_context(ZygoteSandbox(rungs[0])).description
        runners = [make(rung, resources) for rung in rungs]
        _run_many(runners[0], max(1, programs // 10))  # warms caches up
        alone = _run_many(runners[0], programs)
        began = time.perf_counter()
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(lambda runner: _run_many(runner, programs), runners))
        seconds = time.perf_counter() - began
    latencies = [latency for latency, _ in alone]
    return Result(
        rung=name,
        interpreter=interpreter,
        description=description,
        programs=programs,
        median_milliseconds=1e3 * statistics.median(latencies),
        p99_milliseconds=1e3 * _percentile(latencies, 0.99),
        cpu_milliseconds=1e3 * statistics.median(cpu for _, cpu in alone),
        programs_per_second_per_core=programs * workers / seconds / min(workers, _cores()),
        workers=workers,
    )


def _run_many(run: Runner, number: int) -> list[tuple[float, float]]:
    """Wall-clock and CPU seconds of each program."""
    found = []
    for _ in range(number):
        began = time.perf_counter()
        execution = run()
        found.append((time.perf_counter() - began, execution.cpu_seconds))
        if (execution.status, execution.output) != (Status.OK, EXPECTED):
            raise SandboxFault(f"the program ended with {execution.status}: {execution.message}")
    return found


def _spare_user(resources: ExitStack) -> SpareUser | None:
    if not can_switch_user():
        return None
    user = SpareUser()
    resources.callback(user.release)
    return user


def _percentile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def show(results: list[Result], console: Console) -> None:
    """The table."""
    table = Table(title="Small programs with numpy loaded")
    for column in ("sandbox", "interpreter", "median ms", "p99 ms", "CPU ms", "programs/s/core"):
        table.add_column(column, justify="left" if column in ("sandbox", "interpreter") else "right")
    for result in results:
        times = (result.median_milliseconds, result.p99_milliseconds, result.cpu_milliseconds)
        throughput = f"{result.programs_per_second_per_core:.1f}"
        table.add_row(result.rung, result.interpreter, *(f"{value:.2f}" for value in times), throughput)
    console.print(table)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rungs", nargs="+", default=list(RUNGS), choices=RUNGS)
    parser.add_argument("--programs", type=int, default=1000, help="timed programs of a warm interpreter")
    parser.add_argument("--workers", type=int, default=_cores(), help="sandboxes at once for the throughput")
    parser.add_argument("--output", type=Path, default=None, help="write the numbers as JSON here")
    return parser.parse_args()


def main() -> None:
    """Measures every rung that works here and reports."""
    args, console, results = parse_arguments(), Console(width=120), []
    for name in args.rungs:
        for interpreter, programs in (("warm", args.programs), ("fresh", max(2, args.programs // FRESH_SHARE))):
            try:
                results.append(measure(name, interpreter, programs=programs, workers=args.workers))
            except SandboxFault as fault:
                console.print(f"{name}, {interpreter}: {fault}")
    show(results, console)
    if args.output:
        facts = environment(torch.device("cpu")) | {"cores": _cores()}
        args.output.write_text(json.dumps({"environment": facts, "results": [asdict(r) for r in results]}, indent=2))
        console.print(f"written to {args.output}")


if __name__ == "__main__":
    main()

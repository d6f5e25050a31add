"""Runs programs of the corpus in one rung and prints what came of each as JSON. Needs the standard library only.

python -m tests.code_execution.driver --mode bwrap hostile honest
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import resource
import secrets
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from dschat.code_execution import rungs
from dschat.code_execution.execute import _pid_of
from dschat.code_execution.records import Execution, Job, Limits, Status
from dschat.code_execution.sandbox import ZygoteSandbox, open_sandbox
from tests.code_execution.corpus import HOSTILE, PROGRAMS, Program, load
from tests.code_execution.world import World, processes_marked

_SECONDS_TO_DISAPPEAR = 0.3
_RETRIES = 5
_MARK = f"mark {secrets.token_hex(8)}"
rungs._START += f"  # {_MARK}"


def _attack(sandbox: ZygoteSandbox, program: Program) -> dict[str, Any]:
    """Run a hostile program and look at the world afterwards."""
    user = sandbox._rung.user
    limits = program.limits
    with World.made(user.uid if user else None, limits_threads=sandbox._rung.limits_threads) as world:
        if "after" in program.headers:
            sandbox.run(Job(program.headers["after"]), limits)
        words = f"WORLD = {world.for_the_program(limits)!r}\n"
        text = words + (PROGRAMS / "prelude.py").read_text() + program.text
        execution = _run(sandbox, Job(text, program.stdin, program.function, program.arguments), limits)
        damage = world.damage()
        if world.secret.encode() in execution.output or os.environ["DSCHAT_TEST_SECRET"].encode() in execution.output:
            damage.append("a secret was printed")
        damage += _survivors(sandbox)
        damage += [line for line in execution.output.decode("latin-1").splitlines() if line.startswith("breach")]
    return dataclasses.asdict(execution) | {"damage": damage}


def _run(sandbox: ZygoteSandbox, job: Job, limits: Limits) -> Execution:
    """Once more, a few times, where the rest of the machine left no processor for it."""
    for _ in range(_RETRIES):
        execution = sandbox.run(job, limits)
        if execution.status is not Status.INFRA_ERROR or "the machine gave" not in execution.message:
            break
    return execution


def _survivors(sandbox: ZygoteSandbox) -> list[str]:
    """What the program left running below the zygote."""
    if sandbox._zygote is None:
        return []
    zygote, deadline = _pid_of(sandbox._zygote._pidfd), time.monotonic() + _SECONDS_TO_DISAPPEAR
    while True:
        left = [pid for pid, parent in processes_marked(_MARK).items() if parent == zygote]
        if not left:
            return []
        if time.monotonic() > deadline:
            return [f"{len(left)} processes survived"]
        time.sleep(0.02)


def _solve(sandbox: ZygoteSandbox, program: Program) -> dict[str, Any]:
    """Run an honest program."""
    job = Job(program.text, program.stdin, program.function, program.arguments)
    return dataclasses.asdict(_run(sandbox, job, program.limits))


def run_programs(mode: str, programs: Sequence[Program], workers: int) -> dict[str, Any]:
    """Run programs in several sandboxes at once."""
    descriptors = len(os.listdir("/proc/self/fd"))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sandboxes = [open_sandbox(mode, allow_unsandboxed=mode == "none") for _ in range(workers)]
    numpy = bool(sandboxes[0].hello["numpy"])
    waiting = [program for program in reversed(programs) if program.runs_on(mode, numpy=numpy)]
    results = {}

    def work(sandbox: ZygoteSandbox) -> None:
        while waiting:
            program = waiting.pop()
            run = _solve if program.name in honest else _attack
            results[program.name] = run(sandbox, program)

    honest = load("honest")
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(work, sandboxes))
    idle = processes_marked(_MARK)
    for sandbox in sandboxes:
        sandbox.close()
    return {
        "description": sandboxes[0].description,
        "programs": results,
        "processes_while_idle": len(idle),
        "sandboxes": workers,
        "processes_after": [pid for pid in idle if Path(f"/proc/{pid}").exists()],
        "descriptors_left": len(os.listdir("/proc/self/fd")) - descriptors,
        "grown_mebibytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024,
    }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mode", required=True)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--teeth", action="store_true", help="only programs that must commit a breach if they can")
    parser.add_argument("kinds", nargs="+", choices=["hostile", "honest"])
    args = parser.parse_args()
    files = [file for kind in args.kinds for file in (HOSTILE if kind == "hostile" else [kind])]
    programs = [program for program in load(*files).values() if not args.teeth or "teeth" in program.headers]
    json.dump(run_programs(args.mode, programs, args.workers), sys.stdout, default=lambda data: data.decode("latin-1"))


if __name__ == "__main__":
    main()

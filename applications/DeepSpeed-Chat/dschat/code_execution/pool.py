"""Grades many programs beside the training process.

Workers are processes of their own, started by exec and not by fork: nothing of the trainer's memory, accelerator or
environment is in them. A worker that dies costs no result: its program is graded again by its successor.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import queue
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from dschat.code_execution.apps_tests import GradingRules, Outcome, TestReport
from dschat.code_execution.long_integers import dump_json
from dschat.code_execution.sandbox import Mode
from dschat.errors import UserError

logger = logging.getLogger(__name__)


Job = tuple[str, Mapping[str, Any]]
"""A program and its problem's `input_output`."""

BATCH_SECONDS = 300.0
ATTEMPTS = 3
"""Workers that may die of one program before it is given up."""
MAX_CACHED = 20_000
"""Reports kept, the most recently used."""
START_SECONDS = 60.0
"""For a worker to find its sandbox."""
CLOSE_SECONDS = 2.0
"""For a worker to leave by itself."""
GRACE_SECONDS = 10.0
"""Beyond what a program may take, before its worker is taken for stuck."""


@dataclass(frozen=True)
class SandboxChoice:
    """Which sandbox the workers open."""

    mode: Mode = "auto"
    allow_unsandboxed: bool = False


DEFAULT_RULES = GradingRules()
DEFAULT_SANDBOX = SandboxChoice()


def default_workers() -> int:
    """This process's share of the cores of the machine but one, at least 1."""
    # the launchers' names for the processes of this node: deepspeed's and torchrun's
    processes = int(os.environ.get("LOCAL_SIZE") or os.environ.get("LOCAL_WORLD_SIZE") or "1")
    return max(1, (len(os.sched_getaffinity(0)) - 1) // processes)


class Grading:
    """Programs that are being graded."""

    def __init__(self, futures: Sequence[Future[TestReport]], *, cached: Sequence[bool], deadline: float) -> None:
        self._futures = futures
        self._deadline = deadline
        self.cached = tuple(cached)
        """For each program, whether it had been submitted before."""

    def results(self) -> list[TestReport]:
        """Wait for the reports, in the order of the programs.

        What is not done when the batch's time is up comes back ungraded.
        """
        return [self._result(future) for future in self._futures]

    def _result(self, future: Future[TestReport]) -> TestReport:
        try:
            return future.result(timeout=max(0.0, self._deadline - time.monotonic()))
        except (TimeoutError, CancelledError):
            future.cancel()
            return ungraded("the time for the batch is up")


class GradingPool:
    """Worker processes, each with a sandbox, and the memory of what they found."""

    def __init__(
        self,
        num_workers: int,
        *,
        sandbox: SandboxChoice = DEFAULT_SANDBOX,
        rules: GradingRules = DEFAULT_RULES,
        batch_seconds: float = BATCH_SECONDS,
    ) -> None:
        """Start the workers and wait until each has its sandbox.

        Args:
            num_workers: programs graded at once.
            sandbox: which one.
            rules: limits and judgement.
            batch_seconds: from the submission of a batch to its last result.
        Raises:
            UserError: no sandbox works here.
        """
        self._batch_seconds = batch_seconds
        self._cache: OrderedDict[str, Future[TestReport]] = OrderedDict()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._workers = [_Worker(sandbox, rules) for _ in range(num_workers)]
        # a worker dies with the thread that started it, so the threads are those that live as long as the pool
        self._threads = ThreadPoolExecutor(num_workers, thread_name_prefix="grading")
        try:
            descriptions = list(self._threads.map(_Worker.start, self._workers))
        except BaseException:
            self.close()
            raise
        self.description = descriptions[0]
        """Of the workers' sandbox, in one line."""
        for worker in self._workers:
            self._idle.put(worker)

    def submit(self, jobs: Sequence[Job]) -> Grading:
        """Start grading; programs that were graded before on the same tests are not run again.

        Args:
            jobs: programs with their tests.
        """
        futures: list[Future[TestReport]] = []
        cached: list[bool] = []
        for program, tests in jobs:
            key = _key(program, tests)
            known = self._cache.pop(key, None)
            if known is not None and not _is_reusable(known):
                known = None
            future = self._threads.submit(self._grade, program, tests) if known is None else known
            self._cache[key] = future
            futures.append(future)
            cached.append(known is not None)
        while len(self._cache) > MAX_CACHED:
            self._cache.popitem(last=False)
        return Grading(futures, cached=cached, deadline=time.monotonic() + self._batch_seconds)

    def worker_ids(self) -> list[int]:
        """Process ids of the workers that live."""
        return [worker.pid for worker in self._workers if worker.pid is not None]

    def close(self) -> None:
        """End the workers; programs that are not graded yet come back ungraded."""
        for worker in self._workers:
            worker.retire()
        deadline = time.monotonic() + CLOSE_SECONDS
        for worker in self._workers:
            worker.end(patience=max(0.0, deadline - time.monotonic()))
        self._threads.shutdown(wait=True, cancel_futures=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _grade(self, program: str, tests: Mapping[str, Any]) -> TestReport:
        """In one of the pool's threads, of which there are as many as workers."""
        worker = self._idle.get()
        try:
            return worker.grade(program, tests)
        finally:
            self._idle.put(worker)


class _WorkerDied(Exception):
    """The worker ended, or was ended, before it answered."""


class _Worker:
    """One worker process and its successors."""

    def __init__(self, sandbox: SandboxChoice, rules: GradingRules) -> None:
        self._sandbox = sandbox
        self._rules = rules
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """Of the process that lives, None between two."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> str:
        """Start the process; returns the sandbox's description. UserError where no sandbox works."""
        settings = {
            "sandbox": self._sandbox.mode,
            "allow_unsandboxed": self._sandbox.allow_unsandboxed,
            "rules": asdict(self._rules),
        }
        with self._lock:
            if self._closed:
                raise _WorkerDied("the pool is closed")
            self._process = _start_process()
        try:
            answer = self._exchange(settings, START_SECONDS)
        except _WorkerDied as error:
            raise UserError(f"a grading worker did not start ({error}); its error is above") from error
        if "refused" in answer:
            self.end()
            raise UserError(answer["refused"])
        return str(answer["sandbox"])

    def grade(self, program: str, tests: Mapping[str, Any]) -> TestReport:
        """Grade one program, by several processes if need be."""
        seconds = self._rules.total_wall_seconds + 2 * self._rules.limits.wall_seconds + GRACE_SECONDS
        reason = ""
        for _ in range(ATTEMPTS):
            try:
                if self.pid is None:
                    self.end()
                    self.start()
                return TestReport.from_json(self._exchange({"program": program, "tests": tests}, seconds))
            except (_WorkerDied, UserError) as error:
                reason = str(error)
                if self._closed:
                    break
                logger.warning("a grading worker is replaced: %s", reason)
                self.end()
        return ungraded(reason)

    def retire(self) -> None:
        """Let the process leave after what it is doing, and start no other."""
        with self._lock:
            self._closed = True
            _close_input(self._process)

    def end(self, *, patience: float = CLOSE_SECONDS) -> None:
        """Let the process leave within some seconds, or kill it; nothing of it is left."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        _close_input(process)
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()

    def _exchange(self, request: Mapping[str, Any], seconds: float) -> dict[str, Any]:
        """Send one line and wait for one; a worker that takes longer is killed."""
        process = self._process
        if process is None:
            raise _WorkerDied("the pool is closed")
        assert process.stdin is not None and process.stdout is not None
        watchdog = threading.Timer(seconds, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            process.stdin.write(dump_json(request).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except (OSError, ValueError) as error:  # a broken pipe, or closed by another thread
            raise _WorkerDied(f"process {process.pid} takes no more work ({error})") from error
        finally:
            watchdog.cancel()
        if not line.endswith(b"\n"):
            raise _WorkerDied(f"process {process.pid} ended without an answer")
        return json.loads(line)


def ungraded(reason: str) -> TestReport:
    """The report of a program that nothing is known about."""
    return TestReport((Outcome.INFRA_ERROR,), (reason,), math.nan, ungraded=reason)


def _start_process() -> subprocess.Popen[bytes]:
    """A worker without the trainer's environment, folder and terminal."""
    package = Path(__file__).resolve().parents[2]
    kept = {name: os.environ[name] for name in ("TMPDIR",) if name in os.environ}
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "dschat.code_execution.worker", str(os.getpid())],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": os.defpath, "PYTHONPATH": str(package), "LANG": "C.UTF-8", **kept},
        cwd="/",
        start_new_session=True,
    )


def _close_input(process: subprocess.Popen[bytes] | None) -> None:
    """Tell a worker that no more work comes."""
    if process is None or process.stdin is None:
        return
    try:
        process.stdin.close()
    except OSError as error:
        logger.debug("process %d had closed its input: %s", process.pid, error)


def _is_reusable(future: Future[TestReport]) -> bool:
    """Whether a program needs no second grading: it is under way, or has a result that says something."""
    if not future.done():
        return True
    return not future.cancelled() and future.exception() is None and Outcome.INFRA_ERROR not in future.result().outcomes


def _key(program: str, tests: Mapping[str, Any]) -> str:
    return hashlib.sha256(dump_json([program, tests], sort_keys=True).encode()).hexdigest()

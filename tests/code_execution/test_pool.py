"""Grading processes beside the training: `code_execution/worker.py` under the pool that starts and watches it."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from dschat.code_execution import pool as pool_module
from dschat.code_execution.apps_tests import GradingRules, Outcome, TestReport, grade
from dschat.code_execution.pool import GradingPool, SandboxChoice, default_workers
from dschat.code_execution.sandbox import open_sandbox
from dschat.errors import UserError
from tests.code_execution.graded_programs import ADD, BROKEN, HONEST, SUM, TIME
from tests.code_execution.processes import alive, descendants

RULES = GradingRules(time_limit=0.5, memory_limit=2**29)
QUICK = [case for case in HONEST + BROKEN if TIME not in case.expected()]
ADDER = "print(sum(map(int, input().split())))"
ENDLESS = "while True:\n    pass"
SHORT = {"inputs": ["1 2\n"], "outputs": ["3\n"]}


def numbered(count: int) -> list[tuple[str, dict[str, Any]]]:
    """Right programs that are all different."""
    return [(f"{ADDER}  # {number}", SHORT) for number in range(count)]


def essence(report: TestReport) -> tuple[Any, ...]:
    """A report without its times."""
    return report.outcomes, report.messages, report.score, report.ungraded


def wait_until(condition: Callable[[], bool], *, seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.fixture(scope="module")
def pool() -> Iterator[GradingPool]:
    with GradingPool(2, rules=RULES) as opened:
        yield opened


def test_a_batch_equals_one_by_one(pool: GradingPool) -> None:
    cases = random.Random(0).sample(QUICK, 8)
    together = pool.submit([(case.program, case.tests) for case in cases]).results()
    with open_sandbox() as sandbox:
        alone = [grade(case.program, case.tests, RULES, sandbox) for case in cases]
    assert [essence(report) for report in together] == [essence(report) for report in alone]


def test_results_come_in_the_order_of_the_programs(pool: GradingPool) -> None:
    slow = f"import time\ntime.sleep(0.3)\n{ADDER}"
    reports = pool.submit([(slow, SHORT), ("print(4)", SHORT), (ADDER, SHORT), ("print(", SHORT)]).results()
    assert [report.score for report in reports] == [1.0, -0.3, 1.0, -1.0]


def test_two_batches_may_be_under_way(pool: GradingPool) -> None:
    first, second = pool.submit(numbered(3)), pool.submit([("def add(a, b):\n    return a + b", ADD)])
    assert [report.score for report in second.results()] == [1.0]
    assert [report.score for report in first.results()] == [1.0] * 3


def test_a_program_is_graded_once_on_the_same_tests(pool: GradingPool) -> None:
    program = f"{ADDER}  # once"
    first = pool.submit([(program, SHORT), (program, SHORT), (program, SUM)])
    assert first.cached == (False, True, False)
    assert [report.score for report in first.results()] == [1.0] * 3
    again = pool.submit([(program, dict(reversed(SHORT.items()))), (program + "\n", SHORT)])
    assert again.cached == (True, False)
    assert again.results()[0] == first.results()[0]


def test_the_cache_is_bounded(monkeypatch: pytest.MonkeyPatch, pool: GradingPool) -> None:
    monkeypatch.setattr(pool_module, "MAX_CACHED", 2)
    pool.submit(numbered(3)).results()
    assert pool.submit(numbered(3)).cached == (False, True, True)  # the least recent of three is forgotten


def test_workers_killed_at_random_cost_no_result(pool: GradingPool) -> None:
    cases = [case for case in QUICK if case.program.strip()][::4]  # a comment makes blank programs other ones
    stop = threading.Event()
    killed = []

    def kill() -> None:
        generator = random.Random(1)
        while len(killed) < 4 and not stop.wait(generator.uniform(0.05, 0.3)):
            workers = pool.worker_ids()
            if workers:
                killed.append(generator.choice(workers))
                os.kill(killed[-1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        reports = pool.submit([(f"{case.program}\n# killed", case.tests) for case in cases]).results()
    finally:
        stop.set()
        killer.join()
    assert len(killed) == 4
    assert sum(bool(report.ungraded) for report in reports) <= 1  # a program that lost three of the four
    for case, report in zip(cases, reports, strict=True):
        assert report.ungraded or [o.value for o in report.outcomes] == case.expected(), case.name


def test_an_endless_program_does_not_hold_up_the_batch() -> None:
    with GradingPool(1, rules=GradingRules(time_limit=60.0), batch_seconds=1.0) as pool:
        started = time.monotonic()
        reports = pool.submit([(ADDER, SHORT), (ENDLESS, SHORT), (f"{ADDER}\n", SHORT)]).results()
        assert [bool(report.ungraded) for report in reports] == [False, True, True]
        assert reports[1].ungraded == "the time for the batch is up"
        assert time.monotonic() - started < 5
        [worker] = pool.worker_ids()
        busy = {worker, *descendants(worker)}
        assert len(busy) >= 2
    assert wait_until(lambda: not alive(busy))


@pytest.mark.parametrize(
    ("behaviour", "reason"), [("sys.exit()", "ended without an answer"), ("time.sleep(60)", "ended without an answer")]
)
def test_a_program_that_no_worker_survives_is_given_up(
    monkeypatch: pytest.MonkeyPatch, behaviour: str, reason: str
) -> None:
    code = (
        'import sys, time\nsys.stdin.readline()\nprint(\'{"sandbox": "none"}\', flush=True)\n'
        f"line = sys.stdin.readline()\nif line:\n    {behaviour}"
    )
    started = []

    def start() -> subprocess.Popen[bytes]:
        started.append(subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        return started[-1]

    monkeypatch.setattr(pool_module, "_start_process", start)
    rules = GradingRules(time_limit=0.01)
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 0.3 - rules.total_wall_seconds - 2 * rules.limits.wall_seconds)
    with GradingPool(1, rules=rules) as pool:
        [report] = pool.submit([(ADDER, SHORT)]).results()
        assert report.outcomes == (Outcome.INFRA_ERROR,)
        assert reason in report.ungraded
        assert len(started) == pool_module.ATTEMPTS
        assert pool.submit([(ADDER, SHORT)]).cached == (False,)
    assert all(process.poll() is not None for process in started)


def test_no_sandbox_is_one_sentence_and_leaves_nothing() -> None:
    before = descendants(os.getpid())
    with pytest.raises(UserError, match=r"refusing to run model-written code .*--allow_unsandboxed"):
        GradingPool(2, sandbox=SandboxChoice("none"))
    assert descendants(os.getpid()) == before


def test_no_sandbox_is_used_where_that_is_allowed() -> None:
    with GradingPool(1, sandbox=SandboxChoice("none", allow_unsandboxed=True)) as pool:
        assert "no sandbox" in pool.description
        assert pool.submit([(ADDER, SHORT)]).results()[0].score == 1.0


def test_workers_know_nothing_of_the_trainer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "canary-5d1f")
    monkeypatch.chdir(tempfile.gettempdir())
    with GradingPool(1, rules=RULES) as pool:
        for pid in pool.worker_ids():
            assert b"canary" not in Path(f"/proc/{pid}/environ").read_bytes()
            assert Path(f"/proc/{pid}/cwd").resolve() == Path("/")
            assert os.getsid(pid) == pid


def test_a_thousand_programs_leave_nothing_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    before = descendants(os.getpid()), set(os.listdir("/proc/self/fd"))
    with GradingPool(2, rules=RULES) as pool:
        during = None
        for half in range(2):
            reports = pool.submit([(f"{program} {half}", tests) for program, tests in numbered(500)]).results()
            assert {report.score for report in reports} == {1.0}
            now = descendants(os.getpid())
            assert during is None or now == during  # no process more after a thousand than after five hundred
            during = now
    assert (descendants(os.getpid()), set(os.listdir("/proc/self/fd"))) == before
    assert list(tmp_path.iterdir()) == []


def test_workers_die_with_the_trainer() -> None:
    code = (
        "import json, sys, time\n"
        "from dschat.code_execution.pool import GradingPool\n"
        "pool = GradingPool(2)\n"
        f"pool.submit([({ENDLESS!r}, {SHORT!r})])\n"
        "print(json.dumps(pool.worker_ids()), flush=True)\n"
        "time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        workers = set(json.loads(trainer.stdout.readline()))
        assert wait_until(lambda: len(descendants(trainer.pid)) >= 4)
        everything = descendants(trainer.pid)
        assert len(workers) == 2
        assert workers < everything
        trainer.kill()
    assert wait_until(lambda: not alive(everything))


def test_closing_twice_and_submitting_nothing_are_fine() -> None:
    pool = GradingPool(1)
    assert pool.submit([]).results() == []
    pool.close()
    pool.close()
    assert pool.worker_ids() == []


def test_workers_share_the_cores_of_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(9)))
    for name in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert default_workers() == 8
    for name in ("LOCAL_SIZE", "LOCAL_WORLD_SIZE"):
        with monkeypatch.context() as launched:
            launched.setenv(name, "4")
            assert default_workers() == 2
            launched.setenv(name, "32")
            assert default_workers() == 1

"""Verdicts, faults of the sandbox, what is left behind, and when a sandbox is refused.

What runs within is run here as a whole: `inside/zygote.py` forks, `inside/lockdown.py` and `inside/switch_user.py` lock
the child in, `inside/runner.py` runs the program.
"""

from __future__ import annotations

import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from dschat.code_execution import execute, rungs
from dschat.code_execution.execute import _pid_of
from dschat.code_execution.sandbox import Job, Limits, Status, ZygoteSandbox, open_sandbox
from dschat.code_execution.spare_user import SpareUser, can_switch_user
from dschat.errors import UserError
from tests.code_execution.users import RUNGS, USERS, run_as, why_not
from tests.code_execution.world import processes_marked

BURN = "import time\nwhile time.process_time() < {seconds}: pass\nprint('done')"
SHORT = Limits(cpu_seconds=0.3)


@pytest.fixture(scope="module", params=RUNGS)
def sandbox(request: pytest.FixtureRequest) -> Iterator[ZygoteSandbox]:
    if reason := why_not(request.param, USERS[0]):
        pytest.skip(reason)
    with open_sandbox(request.param) as opened:
        yield opened


@pytest.fixture(scope="module")
def some_rung() -> None:
    """Skip on a machine where no sandbox can work."""
    reasons = [why_not(rung, USERS[0]) for rung in RUNGS]
    if all(reasons):
        pytest.skip("; ".join(map(str, reasons)))


@pytest.fixture(scope="module")
def any_sandbox(some_rung: None) -> Iterator[ZygoteSandbox]:
    """The best there is, for what does not depend on the rung."""
    with open_sandbox() as opened:
        yield opened


def zygote_pid(sandbox: ZygoteSandbox) -> int:
    pid = _pid_of(sandbox._zygote._pidfd)
    assert pid > 1, "the zygote is gone, and a signal to -1 would reach everybody"
    return pid


def wait_for(condition: object, seconds: float = 5) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


# --- verdicts


@pytest.mark.parametrize("text", ["def f(:", "x = '", "a\0b", "(" * 1000, "\ud800", "return 1", "  x = 1\n y = 2"])
def test_text_that_is_no_python_is_a_compile_error(any_sandbox: ZygoteSandbox, text: str) -> None:
    assert any_sandbox.run(Job(text)).status is Status.COMPILE_ERROR


def test_output_is_cut_at_its_limit(any_sandbox: ZygoteSandbox) -> None:
    limits = Limits(output_bytes=10)
    assert any_sandbox.run(Job("print('123456789')"), limits).output == b"123456789\n"
    beyond = any_sandbox.run(Job("print('1234567890')"), limits)
    assert (beyond.status, beyond.output) == (Status.OUTPUT_LIMIT, b"1234567890")


def test_cpu_time_is_limited_in_fractions_of_a_second(any_sandbox: ZygoteSandbox) -> None:
    found = any_sandbox.run(Job("while True: pass"), Limits(cpu_seconds=0.15))
    assert found.status is Status.TIME_LIMIT
    assert 0.15 <= found.cpu_seconds < 0.4


@pytest.mark.usefixtures("some_rung")
def test_a_program_just_within_its_limit_passes_with_four_at_once() -> None:
    """What is judged is CPU time: wall-clock time is several times as long here."""
    limits = Limits(cpu_seconds=0.2)
    job = Job(BURN.format(seconds=0.9 * limits.cpu_seconds))

    def statuses(sandbox: ZygoteSandbox) -> list[Status]:
        found = [sandbox.run(job, limits).status]
        while found[-1] is Status.INFRA_ERROR and len(found) < 10:  # the rest of the machine may be busy
            found.append(sandbox.run(job, limits).status)
        return found

    with ExitStack() as stack, ThreadPoolExecutor(4) as pool:
        opened = [stack.enter_context(open_sandbox()) for _ in range(4)]
        for found in pool.map(statuses, opened):
            assert found[-1] is Status.OK
            assert Status.TIME_LIMIT not in found


def test_the_kernel_stops_a_program_that_the_supervisor_overlooks(
    any_sandbox: ZygoteSandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overlook(self: execute._Run, now: float) -> None:
        self._next_check = now + 60

    monkeypatch.setattr(execute._Run, "_time_is_up", overlook)
    found = any_sandbox.run(Job("while True: pass"), SHORT)
    assert found.status is Status.TIME_LIMIT
    assert found.cpu_seconds < 2.5  # the kernel counts whole seconds, one more than the limit


@contextmanager
def crowded(sandbox: ZygoteSandbox) -> Iterator[None]:
    """Let the sandbox share one processor with many busy processes."""
    processor = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(zygote_pid(sandbox))
    os.sched_setaffinity(zygote_pid(sandbox), {processor})
    loop = f"import os; os.sched_setaffinity(0, {{{processor}}})\nwhile True: pass"
    # each in a session of its own, as some kernels share processors among sessions first
    crowd = [subprocess.Popen([sys.executable, "-S", "-c", loop], start_new_session=True) for _ in range(16)]
    time.sleep(0.5)
    try:
        yield
    finally:
        for process in crowd:
            process.kill()
            process.wait()
        os.sched_setaffinity(zygote_pid(sandbox), before)


def test_a_crowded_machine_is_no_verdict_but_sleep_is(any_sandbox: ZygoteSandbox) -> None:
    """Both end at the wall-clock limit with little CPU time; they differ in whether they wanted more."""
    with crowded(any_sandbox):
        starved = any_sandbox.run(Job("while True: pass"), SHORT)
        asleep = any_sandbox.run(Job("import time; time.sleep(60)"), SHORT)
    assert (starved.status, asleep.status) == (Status.INFRA_ERROR, Status.TIME_LIMIT)
    assert starved.cpu_seconds < SHORT.cpu_seconds
    assert any_sandbox.run(Job("print(1)")).status is Status.OK


def test_arguments_that_are_no_list_are_the_callers_fault(any_sandbox: ZygoteSandbox) -> None:
    for arguments in ('{"a": 1}', "[1"):
        found = any_sandbox.run(Job("def f(): return 1", function="f", arguments=arguments))
        assert found.status is Status.INFRA_ERROR
    assert any_sandbox.run(Job("def f(): return 1", function="f")).output == b"1"


# --- faults of the sandbox


def test_a_zygote_that_dies_is_replaced(sandbox: ZygoteSandbox) -> None:
    first = zygote_pid(sandbox)
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: not Path(f"/proc/{first}").exists() or sandbox._zygote._process.poll() is not None)
    assert sandbox.run(Job("print(1)")).status is Status.INFRA_ERROR
    assert sandbox.run(Job("print(1)")).output == b"1\n"
    assert zygote_pid(sandbox) != first


def test_a_zygote_that_dies_in_the_middle_takes_the_program_along(sandbox: ZygoteSandbox) -> None:
    zygote = zygote_pid(sandbox)
    threading.Timer(0.3, os.kill, (zygote, signal.SIGKILL)).start()
    found = sandbox.run(Job("import time; time.sleep(60)"), Limits(cpu_seconds=4))
    assert found.status is Status.INFRA_ERROR
    assert found.wall_seconds < 2
    assert sandbox.run(Job("print(1)")).status is Status.OK


def test_a_program_killed_from_outside_is_an_infrastructure_error(sandbox: ZygoteSandbox) -> None:
    zygote = zygote_pid(sandbox)

    def kill_children() -> None:
        for pid, parent in processes_marked("code_execution.inside.zygote").items():
            if parent == zygote:
                os.kill(pid, signal.SIGKILL)

    threading.Timer(0.3, kill_children).start()
    assert sandbox.run(Job("import time; time.sleep(60)"), Limits(cpu_seconds=4)).status is Status.INFRA_ERROR
    assert zygote_pid(sandbox) == zygote


def test_a_zygote_that_hangs_is_replaced(sandbox: ZygoteSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_ANSWER_SECONDS", 0.5)
    hanging = zygote_pid(sandbox)
    threading.Timer(0.3, os.kill, (hanging, signal.SIGSTOP)).start()
    found = sandbox.run(Job("import time; time.sleep(0.6)"), SHORT)
    assert (found.status, found.message) == (Status.INFRA_ERROR, "the end of a program was not reported")
    assert not Path(f"/proc/{hanging}").exists()
    monkeypatch.undo()
    assert sandbox.run(Job("print(1)")).output == b"1\n"


def test_ctrl_c_leaves_the_sandbox_usable(sandbox: ZygoteSandbox) -> None:
    threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        sandbox.run(Job("import time; time.sleep(60)"), Limits(cpu_seconds=4))
    assert sandbox.run(Job("print(1)")).output == b"1\n"


SUPERVISOR = """
import sys, threading
from dschat.code_execution.execute import _pid_of
from dschat.code_execution.sandbox import Job, Limits, open_sandbox
sandbox = open_sandbox(sys.argv[1])
job = Job("import time; time.sleep(60)")
threading.Thread(target=sandbox.run, args=(job, Limits(cpu_seconds=30)), daemon=True).start()
threading.Event().wait(0.5)
print(_pid_of(sandbox._zygote._pidfd), flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("rung", RUNGS)
def test_nothing_outlives_a_supervisor_that_is_killed(rung: str) -> None:
    if reason := why_not(rung, USERS[0]):
        pytest.skip(reason)
    supervisor = subprocess.Popen([sys.executable, "-c", SUPERVISOR, rung], stdout=subprocess.PIPE, text=True)
    zygote = int(supervisor.stdout.readline())
    family = processes_marked("code_execution.inside.zygote")
    running = [zygote, *(pid for pid, parent in family.items() if parent == zygote)]
    assert len(running) == 2
    supervisor.kill()
    supervisor.wait()
    assert wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in running))


@pytest.mark.usefixtures("some_rung")
def test_a_sandbox_survives_the_thread_that_opened_it() -> None:
    with ThreadPoolExecutor(1) as pool:
        sandbox = pool.submit(open_sandbox).result()
    time.sleep(0.2)
    with sandbox:
        assert sandbox.run(Job("print(1)")).output == b"1\n"


def test_threads_may_share_a_sandbox(any_sandbox: ZygoteSandbox) -> None:
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda n: any_sandbox.run(Job(f"print({n})")).output, range(40)))
    assert found == [b"%d\n" % n for n in range(40)]


@pytest.mark.usefixtures("some_rung")
def test_a_closed_sandbox_runs_nothing() -> None:
    with open_sandbox() as sandbox:
        pass
    sandbox.close()
    assert sandbox.run(Job("print(1)")).status is Status.INFRA_ERROR


@pytest.mark.usefixtures("some_rung")
def test_a_thousand_programs_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    endings = ["print(1)", "1 / 0", "def f(:", "import os; os._exit(3)", "import ctypes; ctypes.string_at(0)"]

    def belongings() -> tuple[int, list[str], int]:
        """Descriptors, files, child processes and zombies."""
        children = Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()
        return len(os.listdir("/proc/self/fd")), os.listdir(tmp_path), len(children)

    before = belongings()
    with open_sandbox() as sandbox:
        warm = belongings()
        for n in range(1000):
            assert sandbox.run(Job(endings[n % len(endings)])).status is not Status.INFRA_ERROR
        family = processes_marked("code_execution.inside.zygote").values()
        assert sum(parent == zygote_pid(sandbox) for parent in family) == 0
        assert belongings() == warm
    assert belongings() == before
    assert before[1] == []


# --- what the zygote gets to see


def test_the_zygote_never_reads_a_program_or_its_output(sandbox: ZygoteSandbox) -> None:
    """The secrets pass through descriptors that only the child reads and writes: no page of the zygote holds them."""
    if not can_switch_user():
        pytest.skip("only root may read the zygote's memory")
    program = "print('printed' + '-' + 'secret')  # written-secret"
    found = sandbox.run(Job(program, stdin="given-secret"))
    assert found.output == b"printed-secret\n"
    memory = memory_of(zygote_pid(sandbox))
    assert b"run_job" in memory
    assert not [word for word in (b"printed-secret", b"written-secret", b"given-secret") if word in memory]


def memory_of(pid: int) -> bytes:
    pieces = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, *_ = line.split()
            if rights.startswith("rw"):
                start, end = (int(edge, 16) for edge in span.split("-"))
                memory.seek(start)
                pieces.append(memory.read(end - start))
    return b"".join(pieces)


# --- users


@pytest.mark.skipif(not can_switch_user(), reason="only root has users to spare")
@pytest.mark.usefixtures("some_rung")
def test_every_sandbox_of_root_has_a_user_of_its_own() -> None:
    with open_sandbox() as first, open_sandbox() as second:
        uids = [int(sandbox.run(Job("import os; print(os.getuid())")).output) for sandbox in (first, second)]
    assert len(set(uids)) == 2
    assert 0 not in uids
    again = SpareUser()
    again.release()
    assert again.uid <= min(uids)


@pytest.mark.skipif(not can_switch_user(), reason="only root has users to spare")
def test_a_spare_user_that_somebody_claims_is_passed_over() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as claim:
        taken = SpareUser()
        taken.release()
        claim.bind(f"\0dschat-sandbox-user-{taken.uid}")
        following = SpareUser()
        following.release()
        assert following.uid > taken.uid


def test_a_plain_user_keeps_its_own_id() -> None:
    user = USERS[-1]
    if reason := why_not("landlock", user):
        pytest.skip(reason)
    if user == "root":
        pytest.skip("no plain user here")
    code = (
        "from dschat.code_execution.sandbox import *; import os\n"
        "with open_sandbox('landlock') as sandbox:\n"
        "    print(sandbox.run(Job('import os; print(os.getuid())')).output == b'%d\\n' % os.getuid())"
    )
    run = run_as(user, "-c", code)
    assert run.stdout == "True\n", run.stderr


# --- which sandbox, and when none


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the whole PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    return tmp_path


def fake_bwrap(tools: Path, script: str) -> None:
    path = tools / "bwrap"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)


def test_without_bubblewrap_the_message_says_how_to_get_it(tools: Path) -> None:
    with pytest.raises(UserError, match="bwrap is not installed") as refusal:
        open_sandbox("bwrap")
    assert "apt-get install bubblewrap" in str(refusal.value)
    assert "--allow_unsandboxed" in str(refusal.value)


def test_the_message_says_why_bubblewrap_failed(tools: Path) -> None:
    fake_bwrap(tools, 'echo "bwrap: No permissions to create new namespace" >&2; exit 1')
    with pytest.raises(UserError, match="No permissions to create new namespace"):
        open_sandbox("bwrap")


def test_a_bubblewrap_that_contains_nothing_fails_the_self_test(tools: Path) -> None:
    fake_bwrap(tools, 'while [ "$1" != -- ]; do shift; done; shift; exec "$@"')
    with pytest.raises(UserError, match="failed its self-test, writes files"):
        open_sandbox("bwrap")


def test_a_bubblewrap_that_runs_nothing_is_refused(tools: Path) -> None:
    fake_bwrap(tools, "exit 0")
    with pytest.raises(UserError, match="bwrap: the process inside the sandbox has died"):
        open_sandbox("bwrap")


@pytest.mark.parametrize(
    ("rung", "missing", "found"),
    [
        ("bwrap", {"seccomp": False}, "uses the network"),
        ("landlock", {"seccomp": False}, "uses the network"),
        ("landlock", {"readable_paths": None}, "writes files"),
        ("landlock", {"readable_paths": ["/"]}, "reads files"),
    ],
)
def test_the_self_test_notices_a_layer_that_is_missing(
    rung: str, missing: dict[str, object], found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if reason := why_not(rung, USERS[0]):
        pytest.skip(reason)
    build = rungs._starter
    monkeypatch.setattr(rungs, "_starter", lambda prefix, settings: build(prefix, replace(settings, **missing)))
    with pytest.raises(UserError, match=f"{rung}: failed its self-test, {found}"):
        open_sandbox(rung)


def test_the_second_rung_serves_where_the_first_is_missing(tools: Path) -> None:
    if reason := why_not("landlock", USERS[0]):
        pytest.skip(reason)
    with open_sandbox("auto") as sandbox:
        assert "Landlock" in sandbox.description


def test_a_kernel_without_landlock_is_refused(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rungs, "_START", "import sys; sys.exit('OSError: this kernel has no Landlock')  # {packages}")
    with pytest.raises(UserError, match=r"bwrap: .*; landlock: .*no Landlock"):
        open_sandbox("auto")


def test_without_a_sandbox_nothing_runs_unless_allowed(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match="without a sandbox"):
        open_sandbox("none")
    with open_sandbox("none", allow_unsandboxed=True) as sandbox:
        assert sandbox.run(Job("print(1)")).output == b"1\n"
        assert sandbox.description.startswith("no sandbox")
    assert "without a sandbox" in caplog.text


def test_where_it_is_allowed_no_sandbox_is_the_last_resort(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dschat.code_execution.sandbox._LADDER", {"bwrap": rungs.bubblewrap})
    with open_sandbox("auto", allow_unsandboxed=True) as sandbox:
        assert sandbox.description.startswith("no sandbox")


def test_the_description_names_rung_and_versions(sandbox: ZygoteSandbox) -> None:
    assert sandbox.description.startswith(("bubblewrap ", "no namespaces, Landlock ABI "))
    assert "seccomp" in sandbox.description

"""Runs one job in a zygote's child, watches the limits from outside, and gives the verdict."""

from __future__ import annotations

import fcntl
import json
import math
import os
import select
import signal
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

from dschat.code_execution.inside import protocol
from dschat.code_execution.records import Execution, Job, Limits, Status
from dschat.code_execution.zygote_process import SandboxFault, Zygote, kill

_ANSWER_SECONDS = 5.0
"""For a zygote to fork, or to notice that a child is dead."""
_CHUNK_BYTES = 65536
_SHORTEST_WAIT_SECONDS = 0.002

_VERDICTS = {
    protocol.DONE: Status.OK,
    protocol.COMPILE_ERROR: Status.COMPILE_ERROR,
    protocol.RUNTIME_ERROR: Status.RUNTIME_ERROR,
    protocol.NO_FUNCTION: Status.NO_FUNCTION,
    protocol.MEMORY_ERROR: Status.MEMORY_LIMIT,
}


class _Cut(Enum):
    """Why the supervisor killed a child."""

    OUTPUT = auto()
    CPU_TIME = auto()
    ASLEEP = auto()
    """Wall-clock limit reached, without wanting more processor than it got."""
    STARVED = auto()
    """Wall-clock limit reached, after waiting for a processor."""


@dataclass
class _Stream:
    """What came through one pipe."""

    limit: int
    keep: bool = True
    data: bytearray = field(default_factory=bytearray)
    size: int = 0

    @property
    def overflowed(self) -> bool:
        return self.size > self.limit

    def read_from(self, descriptor: int) -> bool:
        """Read what is there, up to one byte beyond the limit; False at the end of the pipe."""
        while not self.overflowed:
            try:
                chunk = os.read(descriptor, min(_CHUNK_BYTES, self.limit + 1 - self.size))
            except BlockingIOError:
                return True
            if not chunk:
                return False
            self.size += len(chunk)
            if self.keep:
                self.data += chunk
        return False


def execute(zygote: Zygote, job: Job, limits: Limits, *, killable_from_inside: bool = False) -> Execution:
    """Run a job to its verdict.

    Args:
        zygote: warm, and doing nothing else.
        job: the program and its input.
        limits: what it may use.
        killable_from_inside: a program can send itself SIGKILL, so that an unexplained one proves no fault of ours.
    Raises:
        SandboxFault: the zygote is of no further use.
    """
    run = _Run(zygote, job, limits)
    status, message = _verdict(run, call=job.function is not None, killable_from_inside=killable_from_inside)
    output = bytes(run.output.data[: limits.output_bytes])
    return Execution(status, output, message, cpu_seconds=run.cpu_seconds, wall_seconds=run.wall_seconds)


class _Run:
    """One job from its start to its end."""

    def __init__(self, zygote: Zygote, job: Job, limits: Limits) -> None:
        self.limits = limits
        self.output = _Stream(limits.output_bytes)
        self.noise = _Stream(limits.output_bytes, keep=False)
        self.report = _Stream(len(protocol.RUNNING) + len(protocol.DONE) + protocol.MAX_MESSAGE_BYTES)
        self.cut: _Cut | None = None
        self._zygote, self._pipes = zygote, dict[int, _Stream]()
        self._began = time.monotonic()
        self._next_check = self._began + limits.cpu_seconds
        with ExitStack() as resources:
            self._send(job, resources)
            self._pidfd = self._receive_pidfd()
            resources.callback(os.close, self._pidfd)
            self.wait_status, self.cpu_seconds = self._watch()
            for descriptor, stream in self._pipes.items():
                stream.read_from(descriptor)
        self.wall_seconds = time.monotonic() - self._began

    def _send(self, job: Job, resources: ExitStack) -> None:
        """Hand the zygote the child's ends of everything, and close them here."""
        content = {"program": job.program, "function": job.function, "arguments": job.arguments}
        files = {protocol.JOB: json.dumps(content).encode(), protocol.STDIN: job.stdin.encode("utf-8", "replace")}
        streams = {protocol.OUTPUT: self.output, protocol.NOISE: self.noise, protocol.REPORT: self.report}
        with ExitStack() as far_ends:
            descriptors = {}
            for number, data in files.items():
                descriptors[number] = _sealed_file(data)
                far_ends.callback(os.close, descriptors[number])
            for number, stream in streams.items():
                near, descriptors[number] = os.pipe()
                far_ends.callback(os.close, descriptors[number])
                resources.callback(os.close, near)
                os.set_blocking(near, False)
                self._pipes[near] = stream
            limits = self.limits
            request = protocol.REQUEST.pack(math.ceil(limits.cpu_seconds) + 1, limits.memory_bytes, limits.max_threads)
            self._zygote.send(request, [descriptors[number] for number in range(protocol.DESCRIPTORS)])

    def _receive_pidfd(self) -> int:
        _, pidfd = self._zygote.receive(time.monotonic() + _ANSWER_SECONDS)
        if pidfd is None:
            raise SandboxFault("the process inside the sandbox broke the protocol")
        return pidfd

    def _watch(self) -> tuple[int, float]:
        """Read pipes and watch limits until the zygote says how the child ended: wait status, CPU seconds."""
        poll = select.poll()
        control = self._zygote.control.fileno()
        for descriptor in (control, *self._pipes):
            poll.register(descriptor, select.POLLIN)
        while True:
            timeout = max(_SHORTEST_WAIT_SECONDS, self._next_check - time.monotonic())
            ready = {descriptor for descriptor, _ in poll.poll(math.ceil(1000 * timeout))}
            for descriptor in ready - {control}:
                if not self._pipes[descriptor].read_from(descriptor):
                    poll.unregister(descriptor)
            if control in ready:
                message, _ = self._zygote.receive(time.monotonic() + _ANSWER_SECONDS)
                return protocol.ENDED.unpack(message)
            self._check_limits(time.monotonic())

    def _check_limits(self, now: float) -> None:
        """Kill the child where it went beyond a limit; SandboxFault if it did not die of that."""
        if self.cut is not None:
            if now >= self._next_check:
                raise SandboxFault("a killed program did not end")
            return
        if self.output.overflowed or self.noise.overflowed:
            self.cut = _Cut.OUTPUT
        elif now >= self._next_check:
            self.cut = self._time_is_up(now)
        if self.cut is not None:
            kill(self._pidfd)
            self._next_check = now + _ANSWER_SECONDS

    def _time_is_up(self, now: float) -> _Cut | None:
        """Whether CPU time or wall-clock time is used up; if not, sets the time of the next check."""
        deadline = self._began + self.limits.wall_seconds
        pid = _pid_of(self._pidfd)
        used = _cpu_seconds(pid)
        if used is None:  # it has just ended
            self._next_check = now + _ANSWER_SECONDS
            return None
        if used >= self.limits.cpu_seconds:
            return _Cut.CPU_TIME
        if now >= deadline:
            return _Cut.STARVED if used + _waited_seconds(pid) >= self.limits.cpu_seconds else _Cut.ASLEEP
        self._next_check = min(deadline, now + self.limits.cpu_seconds - used)
        return None


def _verdict(run: _Run, *, call: bool, killable_from_inside: bool) -> tuple[Status, str]:
    """Status and message; raises SandboxFault where the child was never locked in."""
    report = bytes(run.report.data)
    if report.startswith(protocol.FAULT):
        raise SandboxFault(f"a child could not be locked in: {_text(report[1:])}")
    limit = run.limits.cpu_seconds
    if run.cut is _Cut.OUTPUT:
        return Status.OUTPUT_LIMIT, f"more than {run.limits.output_bytes} bytes of output"
    if run.cut is _Cut.CPU_TIME or run.cpu_seconds >= limit:
        return Status.TIME_LIMIT, f"more than {limit:g} s of CPU time"
    if run.cut is _Cut.ASLEEP:
        return Status.TIME_LIMIT, f"slept until the limit of {run.limits.wall_seconds:g} s"
    if run.cut is _Cut.STARVED:
        return Status.INFRA_ERROR, f"the machine gave it only {run.cpu_seconds:.2f} s of CPU time"
    if not report.startswith(protocol.RUNNING):
        raise SandboxFault("a child died before its program started")
    if os.WIFSIGNALED(run.wait_status):
        return _death(os.WTERMSIG(run.wait_status), killable_from_inside)
    return _reported(report, call)


def _death(number: int, killable_from_inside: bool) -> tuple[Status, str]:
    name = signal.Signals(number).name if number in set(signal.Signals) else str(number)
    if number == signal.SIGXCPU:
        return Status.TIME_LIMIT, "killed by SIGXCPU"
    if number == signal.SIGKILL and not killable_from_inside:
        return Status.INFRA_ERROR, "killed from outside; the machine may be out of memory"
    return Status.RUNTIME_ERROR, f"killed by {name}"


def _reported(report: bytes, call: bool) -> tuple[Status, str]:
    """What the child says of itself; one that left by os._exit() says nothing."""
    code, message = report[1:2], _text(report[2:])
    if code:
        return _VERDICTS.get(code, Status.RUNTIME_ERROR), message
    return (Status.RUNTIME_ERROR, "ended before it returned") if call else (Status.OK, "")


def _text(message: bytes) -> str:
    return message[: protocol.MAX_MESSAGE_BYTES].decode("utf-8", "replace")


def _sealed_file(data: bytes) -> int:
    """A file in memory that nobody can change any more, at its beginning."""
    descriptor = os.memfd_create("job", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    return descriptor


def _pid_of(pidfd: int) -> int:
    """A child's process id in this process's numbering, -1 once it is gone: the zygote counts in its own namespace."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


def _cpu_seconds(pid: int) -> float | None:
    """CPU time of all threads of a process so far, None once it is gone."""
    if pid <= 0:
        return None
    process_clock = (~pid << 3) | 2  # as clock_getcpuclockid(3) makes it
    try:
        return time.clock_gettime(process_clock)
    except OSError:
        return None


def _waited_seconds(pid: int) -> float:
    """How long a process's living threads were ready to run without a processor, see schedstat in proc(5)."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").glob("*/schedstat"):
        try:
            nanoseconds += int(task.read_text().split()[1])
        except (OSError, IndexError):  # ended meanwhile
            continue
    return nanoseconds / 1e9

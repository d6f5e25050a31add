"""What goes into a sandbox and what comes out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Protocol, Self

GIBIBYTE = 2**30
MEBIBYTE = 2**20


class Status(StrEnum):
    """How a program ended. Only INFRA_ERROR is not the program's doing, and must never become a reward."""

    OK = "ok"
    """A script came to its end or left by sys.exit() or os._exit(), whatever its exit code; a call returned JSON."""
    COMPILE_ERROR = "compile_error"
    RUNTIME_ERROR = "runtime_error"
    """An uncaught exception, a fatal signal, or a call that ended without returning JSON."""
    NO_FUNCTION = "no_function"
    TIME_LIMIT = "time_limit"
    """More CPU time than allowed, or asleep until the wall-clock limit."""
    MEMORY_LIMIT = "memory_limit"
    """An uncaught MemoryError."""
    OUTPUT_LIMIT = "output_limit"
    INFRA_ERROR = "infra_error"
    """The sandbox failed, or the machine was too busy to give the program its CPU time."""


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    cpu_seconds: float = 4.0
    """User and system time of all its threads; fractions count."""
    memory_bytes: int = GIBIBYTE
    """Address space, interpreter and thread stacks included."""
    output_bytes: int = MEBIBYTE
    """Of standard output, of standard error and of a call's JSON text, each."""
    max_threads: int = 16
    """Not enforced by the Landlock rung for a plain user, where only the address space bounds them."""

    @property
    def wall_seconds(self) -> float:
        """The backstop, for programs that sleep and machines that are too busy."""
        return 3 * self.cpu_seconds + 1


DEFAULT_LIMITS = Limits()


@dataclass(frozen=True)
class Job:
    """One program and one input."""

    program: str
    stdin: str = ""
    function: str | None = None
    """None runs a script as `__main__`. A name is looked up at top level, then as a method of a class Solution."""
    arguments: str = "[]"
    """A JSON list, for a call."""


@dataclass(frozen=True)
class Execution:
    """What a job came to. Output and message are the program's words: untrusted and unparsed."""

    status: Status
    output: bytes
    """Standard output of a script; JSON text of a call's return value. At most output_bytes."""
    message: str
    """Last line of the error, capped; empty if there is none."""
    cpu_seconds: float
    wall_seconds: float


class Sandbox(Protocol):
    """One slot: runs one job at a time. Calls from several threads wait for each other."""

    description: str
    """Rung, versions and what is weaker than it could be, in one line for logs and manifests."""

    def run(self, job: Job, limits: Limits = DEFAULT_LIMITS) -> Execution:
        """Run one program to its verdict; a fault of the sandbox is Status.INFRA_ERROR, not an exception."""
        ...

    def close(self) -> None:
        """End everything in the sandbox. Further jobs are refused with INFRA_ERROR."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

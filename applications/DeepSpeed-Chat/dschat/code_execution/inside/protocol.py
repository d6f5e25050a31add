"""What supervisor and zygote say to each other: a Unix socket between the two, and descriptors that travel over it.

For each job the supervisor sends a REQUEST with DESCRIPTORS file descriptors, in the order of their numbers in the
child. The zygote answers STARTED with a pidfd of the child, and ENDED when the child is gone. The program, its input
and its output pass the zygote by: only the child reads and writes those descriptors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

STDIN, OUTPUT, NOISE, REPORT, JOB = range(5)
"""The child's descriptors. OUTPUT is a script's standard output, or takes a call's JSON text. NOISE is standard error,
and a call's standard output. JOB is gone before the program starts."""
DESCRIPTORS = 5
RESULT = JOB
"""Where a call moves OUTPUT to, so that its standard output can go to NOISE."""

REQUEST = struct.Struct("<qqq")
"""Seconds of CPU time after which the kernel kills, bytes of address space, threads."""
STARTED = b"started"
ENDED = struct.Struct("<id")
"""Wait status, and seconds of CPU time."""

# What a child writes to REPORT: RUNNING once it is locked in, then one of the codes below with a message; or FAULT with
# a message if it could not be locked in. Whatever comes after RUNNING may be the program's own words.
RUNNING = b"+"
FAULT = b"!"
DONE = b"d"
COMPILE_ERROR = b"c"
RUNTIME_ERROR = b"r"
NO_FUNCTION = b"n"
MEMORY_ERROR = b"m"

MAX_MESSAGE_BYTES = 500
STACK_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Settings:
    """How a zygote locks its children in; handed over as JSON on its command line."""

    control_fd: int
    uid: int | None = None
    """The user id children switch to, None where they keep the zygote's."""
    keep_read_access: bool = False
    """Children keep the capability to read what only root may, because the interpreter lies in such a folder."""
    seccomp: bool = True
    readable_paths: list[str] | None = None
    """What Landlock leaves readable; None where Landlock is not used."""
    writable_paths: list[str] = field(default_factory=list)
    other_tasks: int | None = 0
    """Tasks of the same user id beside the child's threads; None where threads cannot be counted."""
    module_folders: list[str] = field(default_factory=list)
    """Searched for modules after the standard library."""

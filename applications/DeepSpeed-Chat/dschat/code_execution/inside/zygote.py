"""A warm interpreter that forks one locked-in child per job.

It never holds a program or its output: a later program could read them in its inherited memory.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import site
import socket
import sys
from collections.abc import Sequence

from dschat.code_execution.inside.leftovers import adopt_orphans, end_leftovers
from dschat.code_execution.inside.lockdown import Lockdown
from dschat.code_execution.inside.preamble import load_preamble
from dschat.code_execution.inside.protocol import (
    DESCRIPTORS,
    ENDED,
    FAULT,
    REPORT,
    REQUEST,
    STARTED,
    Settings,
)
from dschat.code_execution.inside.runner import run_job


def main(library: Sequence[str]) -> None:
    """Warm up, say hello, serve until the supervisor hangs up.

    Args:
        library: folders of the standard library, where programs find modules to import.
    """
    settings = Settings(**json.loads(sys.argv[1]))
    control = socket.socket(fileno=settings.control_fd)
    site.setquit()  # exit() and quit(), which -S leaves out
    sys.path += settings.module_folders
    preamble = load_preamble()
    # what else lies in the folders of this package and of numpy cannot be read: to programs it must be missing
    # (ImportError) rather than forbidden (PermissionError), which no optional import expects
    sys.path[:] = library
    lockdown = Lockdown(settings)
    if not settings.seccomp:
        adopt_orphans()
    os.environ.clear()
    gc.collect()
    gc.freeze()
    hello = {
        "numpy": importlib.import_module("numpy").__version__ if "np" in preamble else None,
        "landlock_abi": lockdown.landlock_abi,
    }
    own_pidfd = os.pidfd_open(os.getpid())
    socket.send_fds(control, [json.dumps(hello).encode()], [own_pidfd])
    os.close(own_pidfd)
    while _serve(control, settings, lockdown, preamble):
        pass


def _serve(control: socket.socket, settings: Settings, lockdown: Lockdown, preamble: dict[str, object]) -> bool:
    """One job; False when the supervisor has hung up."""
    request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, DESCRIPTORS)
    if not request:
        return False
    zygote = os.getpid()
    child = os.fork()
    if child == 0:
        _become_child(control, descriptors, REQUEST.unpack(request), zygote, lockdown, preamble)
    for descriptor in descriptors:
        os.close(descriptor)
    pidfd = os.pidfd_open(child)
    socket.send_fds(control, [STARTED], [pidfd])
    hung_up = _wait(control, pidfd)
    if hung_up:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    os.close(pidfd)
    if not settings.seccomp:
        end_leftovers(settings.uid)
    if not hung_up:
        control.send(ENDED.pack(status, usage.ru_utime + usage.ru_stime))
    return not hung_up


def _wait(control: socket.socket, pidfd: int) -> bool:
    """Wait for the child's end; True if the supervisor hangs up first. It sends nothing meanwhile."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(control, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    return pidfd not in ready


def _become_child(
    control: socket.socket,
    descriptors: list[int],
    limits: tuple[int, int, int],
    zygote: int,
    lockdown: Lockdown,
    preamble: dict[str, object],
) -> None:
    try:
        control.detach()
        _arrange(descriptors)
        cpu_seconds, memory_bytes, threads = limits
        lockdown.apply(cpu_seconds=cpu_seconds, memory_bytes=memory_bytes, threads=threads, zygote=zygote)
        run_job(preamble)
    except BaseException as error:  # nothing may return into the zygote's loop
        os.write(REPORT, FAULT + f"{type(error).__name__}: {error}".encode())
    finally:
        os._exit(1)


def _arrange(descriptors: list[int]) -> None:
    """Give the descriptors their numbers. They came in rising order and above the first three: none is overwritten."""
    for number, descriptor in enumerate(descriptors):
        os.dup2(descriptor, number)

"""What a hostile program may go for, and a look from outside at what became of it."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from dschat.code_execution.records import Limits

_SHARED_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/dev", "/run", "/", "/usr/lib", "/root")
_MANY_THREADS = 10_000


class World:
    """Canaries of one program: a folder open to everybody, a secret, listeners, and a neighbour of the same user."""

    def __init__(self, uid: int | None, *, limits_threads: bool) -> None:
        self._limits_threads = limits_threads
        self.name = f"canary-{secrets.token_hex(8)}"
        self.secret = secrets.token_hex(16)
        self._resources = contextlib.ExitStack()
        self.folder = Path(tempfile.mkdtemp(prefix="dschat-world-"))
        self.folder.chmod(0o777)
        self.writable = self.folder / "writable"
        for path, mode in ((self.folder / "secret", 0o644), (self.writable, 0o666)):
            path.write_text(self.secret)
            path.chmod(mode)
            if uid is not None and path == self.writable:
                os.chown(path, uid, uid)
        self._listen()
        switch = {"user": uid, "group": uid, "extra_groups": []} if uid is not None else {}
        self._neighbour = subprocess.Popen(["/usr/bin/env", "sleep", "600"], cwd="/", **switch)
        self._neighbour_before = self._neighbour_now()

    @classmethod
    @contextlib.contextmanager
    def made(cls, uid: int | None, *, limits_threads: bool) -> Iterator[Self]:
        """Make one and clear it away, whatever a program left in it."""
        world = cls(uid, limits_threads=limits_threads)
        try:
            yield world
        finally:
            world._neighbour.kill()
            world._neighbour.wait()
            world._resources.close()
            subprocess.run(["rm", "-rf", str(world.folder)], check=False)
            for path in world._strays():
                subprocess.run(["rm", "-rf", str(path)], check=False)

    def _listen(self) -> None:
        tcp = self._resources.enter_context(socket.socket())
        udp = self._resources.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        unix = self._resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        tcp.bind(("127.0.0.1", 0))
        udp.bind(("127.0.0.1", 0))
        unix.bind("\0" + self.name)
        tcp.listen()
        self._listeners = (tcp, udp, unix)
        for listener in self._listeners:
            listener.setblocking(False)

    def for_the_program(self, limits: Limits) -> dict[str, object]:
        """What it is told."""
        tcp, udp, _ = (listener.getsockname() for listener in self._listeners)
        return {
            "name": self.name,
            "folder": str(self.folder),
            "secret_file": str(self.folder / "secret"),
            "writable_file": str(self.writable),
            "tcp": tcp[1],
            "udp": udp[1],
            "unix": self.name,
            "victim": self._neighbour.pid,
            "supervisor": os.getpid(),
            "variables": ["DSCHAT_TEST_SECRET", "HOME", "PATH"],
            "threads": limits.max_threads if self._limits_threads else _MANY_THREADS,
            "memory": limits.memory_bytes,
        }

    def damage(self) -> list[str]:
        """What a program did to it, in words; empty if nothing."""
        found = [f"{listener.type.name} was called" for listener in self._listeners if _was_called(listener)]
        names = sorted(path.name for path in self.folder.iterdir())
        if names != ["secret", "writable"]:
            found.append(f"the folder holds {names[:5]}")
        for path in (self.folder / "secret", self.writable):
            if not path.exists() or path.read_text() != self.secret or not path.stat().st_mode & stat.S_IROTH:
                found.append(f"{path.name} was changed")
        found += [f"{path} was written" for path in self._strays()]
        now = self._neighbour_now()
        if now != self._neighbour_before:
            found.append(f"the neighbour was {self._neighbour_before} and is {now}")
        return found

    def _strays(self) -> list[Path]:
        return [path for folder in _SHARED_FOLDERS for path in _matching(Path(folder), self.name)]

    def _neighbour_now(self) -> tuple[object, ...]:
        """Alive, not stopped, priority, processors, limits."""
        pid = self._neighbour.pid
        deadline = time.monotonic() + 5
        while _command(pid) != "sleep" and self._neighbour.poll() is None and time.monotonic() < deadline:
            time.sleep(0.001)  # between fork and exec
        if self._neighbour.poll() is not None:
            return ("dead",)
        state = "stopped" if _state(pid) in "Tt" else "running"
        limits = [line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if line.startswith("Max open")]
        return (
            state, os.getpriority(os.PRIO_PROCESS, pid), tuple(sorted(os.sched_getaffinity(pid))),
            os.sched_getscheduler(pid), *limits,
        )  # fmt: skip


def _matching(folder: Path, name: str) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.name.startswith(name)]
    except OSError:
        return []


def _command(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def _was_called(listener: socket.socket) -> bool:
    try:
        if listener.type == socket.SOCK_STREAM:
            listener.accept()
        else:
            listener.recv(1)
    except BlockingIOError:
        return False
    return True


def processes_marked(mark: str) -> dict[int, int]:
    """Every process on this machine whose command line holds a mark, as forks inherit it, with its parent."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and mark.encode() in (folder / "cmdline").read_bytes():
                found[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found

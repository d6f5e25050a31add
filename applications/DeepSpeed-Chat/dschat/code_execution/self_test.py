"""What a sandbox must show before it gets a program: that it runs benign ones, and that canaries survive attacks."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from dschat.code_execution.records import Job, Limits, Sandbox, Status
from dschat.code_execution.zygote_process import SandboxFault

_LIMITS = Limits(cpu_seconds=2.0, memory_bytes=512 * 2**20)
_SHORT = Limits(cpu_seconds=0.05)
_WRITABLE_FOLDERS = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev")

_SCRIPT_CONTROL = """
import threading
numbers, sums = list(map(int, input().split())), []
thread = threading.Thread(target=lambda: sums.append(sum(numbers)))
thread.start()
thread.join()
print(*sums)
"""
_NUMPY_CONTROL = "import numpy\nprint(numpy.arange(4).reshape(2, 2).dot([1, 1]).tolist())"
_CALL_CONTROL = "class Solution:\n    def double(self, x):\n        return [2 * x]"

_ATTACK = """
import os, signal, socket
def breaches(action, *arguments):
    try:
        action(*arguments)
    except OSError:
        return
    print("breach:", action.__name__, *arguments)
{attack}
print("contained")
"""


@dataclass(frozen=True)
class _Canaries:
    """What attacks go for."""

    folder: Path
    """Open to everybody."""
    secret: str
    """In a file that everybody may read."""
    listeners: tuple[socket.socket, socket.socket, socket.socket]
    """TCP, UDP, and a Unix socket without a file."""

    @property
    def _written(self) -> str:
        """Name of the files that must not appear."""
        return f"{self.folder.name}-written"

    @classmethod
    @contextmanager
    def put_up(cls) -> Iterator[Self]:
        with ExitStack() as resources:
            folder = Path(resources.enter_context(tempfile.TemporaryDirectory(prefix="dschat-canary-")))
            folder.chmod(0o777)
            secret = secrets.token_hex()
            (folder / "secret").write_text(secret)
            (folder / "secret").chmod(0o644)
            kinds = (socket.AF_INET, socket.SOCK_STREAM), (socket.AF_INET, socket.SOCK_DGRAM)
            tcp, udp = (resources.enter_context(socket.socket(*kind)) for kind in kinds)
            unix = resources.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            tcp.bind(("127.0.0.1", 0))
            udp.bind(("127.0.0.1", 0))
            unix.bind(f"\0{folder.name}")
            tcp.listen()
            for listener in (tcp, udp, unix):
                listener.setblocking(False)
            yield cls(folder, secret, (tcp, udp, unix))

    def attacks(self) -> dict[str, str]:
        """Names and programs; each must come to its end without a breach."""
        tcp, udp, unix = (listener.getsockname() for listener in self.listeners)
        places = [str(self.folder), *_WRITABLE_FOLDERS]
        me, writing = os.getpid(), os.O_WRONLY | os.O_CREAT
        return {
            "writes files": f"for place in {places}: breaches(os.open, place + '/{self._written}', {writing})",
            "reads files": f"for path in ({str(self.folder / 'secret')!r}, '/etc/passwd'): breaches(open, path)",
            "reads its environment": "if os.environ: print('breach', *os.environ)",
            "reads other processes": f"for what in ('environ', 'maps', 'stat'): breaches(open, f'/proc/{me}/{{what}}')",
            "writes kernel settings": "breaches(os.open, '/proc/sys/kernel/core_pattern', os.O_WRONLY)",
            "uses the network": (
                "def connect(address): socket.socket().connect(address)\n"
                "def send(family, address): socket.socket(family, socket.SOCK_DGRAM).sendto(b'x', address)\n"
                f"breaches(connect, {tcp!r})\n"
                f"breaches(send, socket.AF_INET, {udp!r})\n"
                f"breaches(send, socket.AF_UNIX, {unix!r})"
            ),
            "starts processes": "breaches(os.fork)\nbreaches(os.execv, '/bin/sh', ['sh', '-c', 'echo breach'])",
            "sends signals": f"for pid in (os.getppid(), {me}, -1): breaches(os.kill, pid, 0)",
        }

    def survive(self) -> bool:
        """Whether nothing was written and nobody called."""
        for listener in self.listeners:
            try:
                listener.accept() if listener.type == socket.SOCK_STREAM else listener.recv(1)
            except BlockingIOError:
                continue
            return False
        places = (self.folder, *map(Path, _WRITABLE_FOLDERS))
        return not any((place / self._written).exists() for place in places)


def check(sandbox: Sandbox, *, numpy: bool) -> None:
    """Run the self-test; SandboxFault names what failed.

    Args:
        sandbox: fresh.
        numpy: whether programs can import numpy in it.
    """
    _expect(sandbox, "benign script", Job(_SCRIPT_CONTROL, stdin="1 2 3\n"), Status.OK, b"6\n")
    _expect(sandbox, "benign call", Job(_CALL_CONTROL, function="double", arguments="[4]"), Status.OK, b"[8]")
    if numpy:
        _expect(sandbox, "numpy", Job(_NUMPY_CONTROL), Status.OK, b"[1, 5]\n")
    with _Canaries.put_up() as canaries:
        for name, attack in canaries.attacks().items():
            _expect(sandbox, name, Job(_ATTACK.format(attack=attack)), Status.OK, b"contained\n")
        if not canaries.survive():
            raise SandboxFault("failed its self-test: a canary did not survive")
    _expect(sandbox, "takes memory", Job(f"print(len(bytearray({_LIMITS.memory_bytes})))"), Status.MEMORY_LIMIT, b"")
    _expect(sandbox, "loops", Job("while True: pass"), Status.TIME_LIMIT, b"", limits=_SHORT)


def _expect(sandbox: Sandbox, name: str, job: Job, status: Status, output: bytes, *, limits: Limits = _LIMITS) -> None:
    execution = sandbox.run(job, limits)
    if (execution.status, execution.output) != (status, output):
        said = execution.message or execution.output.decode("utf-8", "replace").partition("\n")[0]
        raise SandboxFault(f"failed its self-test, {name}: {execution.status}, {said}")

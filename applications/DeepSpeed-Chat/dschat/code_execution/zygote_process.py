"""The supervisor's handle of a zygote."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence

_START_SECONDS = 20.0
"""For a zygote to warm up, on a busy machine too."""
_SHORTEST_WAIT_SECONDS = 0.001
_MAX_STDERR_CHARACTERS = 300
_MAX_MESSAGE_BYTES = 4096


class SandboxFault(RuntimeError):
    """The sandbox did not do its part; the text says what happened."""


class Zygote:
    """A running zygote and the socket to it."""

    def __init__(self, command: Callable[[int], Sequence[str]], environment: dict[str, str]) -> None:
        """Start it and wait until it is warm.

        Args:
            command: the words to start it with, given the number of its end of the socket.
            environment: its whole environment.
        Raises:
            SandboxFault: it did not come up; the text has the last line that it wrote to standard error.
        """
        self.control, far_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd: int | None = None
        with tempfile.TemporaryFile() as errors:
            try:
                with far_end:
                    self._process = subprocess.Popen(
                        command(far_end.fileno()),
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.DEVNULL,
                        stderr=errors,
                        pass_fds=[far_end.fileno()],
                        env=environment,
                        cwd="/",
                        start_new_session=True,
                    )
                hello, self._pidfd = self.receive(time.monotonic() + _START_SECONDS)
                self.hello = json.loads(hello)
            except (OSError, SandboxFault) as error:
                self.kill()
                errors.seek(0)
                said = errors.read().decode("utf-8", "replace").strip().splitlines()
                raise SandboxFault(said[-1][:_MAX_STDERR_CHARACTERS] if said else str(error)) from error
            except BaseException:
                self.kill()
                raise

    def send(self, message: bytes, descriptors: Sequence[int]) -> None:
        """Hand the zygote a message with descriptors; SandboxFault if it is gone."""
        try:
            socket.send_fds(self.control, [message], list(descriptors))
        except OSError as error:
            raise SandboxFault(f"the process inside the sandbox has died: {error}") from error

    def receive(self, deadline: float) -> tuple[bytes, int | None]:
        """The zygote's next message and the descriptor that came with it, by a time of time.monotonic()."""
        self.control.settimeout(max(_SHORTEST_WAIT_SECONDS, deadline - time.monotonic()))
        try:
            message, descriptors, _, _ = socket.recv_fds(self.control, _MAX_MESSAGE_BYTES, 1, socket.MSG_CMSG_CLOEXEC)
        except OSError as error:
            raise SandboxFault(f"no answer from inside the sandbox: {error}") from error
        if not message:
            raise SandboxFault("the process inside the sandbox has died")
        return message, descriptors[0] if descriptors else None

    def kill(self) -> None:
        """End the zygote, and with it its child and its namespaces; wait until nothing is left."""
        with contextlib.suppress(OSError):
            self.control.shutdown(socket.SHUT_RDWR)  # reaches it even if a fork of this process holds the socket
        self.control.close()
        if self._pidfd is not None:
            kill(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        elif self._process is not None:
            self._process.kill()
        if self._process is not None:
            self._process.wait()


def kill(pidfd: int) -> None:
    """SIGKILL, unless it is gone already."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)

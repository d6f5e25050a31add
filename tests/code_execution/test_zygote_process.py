"""The handle of a zygote says why one does not come up, and leaves nothing of it."""

from __future__ import annotations

import os
import sys
import time

import pytest

from dschat.code_execution.zygote_process import SandboxFault, Zygote, kill

HELLO = (
    "import json, os, socket, sys, time; s = socket.socket(fileno=int(sys.argv[1])); "
    "socket.send_fds(s, [json.dumps({'pid': os.getpid()}).encode()], [os.pidfd_open(os.getpid())]); "
)


def start(program: str) -> Zygote:
    return Zygote(lambda end: [sys.executable, "-c", program, str(end)], {"PATH": os.defpath})


def test_the_last_line_of_one_that_fails_is_the_reason() -> None:
    with pytest.raises(SandboxFault, match=r"^ValueError: no such thing$"):
        start("raise ValueError('no such thing')")
    with pytest.raises(SandboxFault, match="has died"):
        start("pass")


def test_what_is_said_arrives_and_killing_leaves_nothing() -> None:
    zygote = start(HELLO + "s.send(b'ready'); time.sleep(300)")
    assert zygote.receive(time.monotonic() + 20) == (b"ready", None)
    with pytest.raises(SandboxFault, match="no answer from inside the sandbox"):
        zygote.receive(time.monotonic() + 0.05)
    pidfd = os.pidfd_open(zygote.hello["pid"])
    zygote.kill()
    kill(pidfd)  # of one that is gone: nothing happens
    os.close(pidfd)


def test_one_that_has_died_is_noticed_when_spoken_to() -> None:
    zygote = start(HELLO)
    with pytest.raises(SandboxFault, match="the process inside the sandbox has died"):
        zygote.receive(time.monotonic() + 20)
    with pytest.raises(SandboxFault, match="the process inside the sandbox has died"):
        zygote.send(b"hello", [0])
    zygote.kill()

"""Stops a process before each change that it makes to the files below a folder, and kills it before a chosen one.

The kernel asks (seccomp user notification, see seccomp_unotify(2)) whenever the process calls the system to create,
write, force to disk, rename, link or delete; so nothing is missed, whether Python, C++ or Rust does it, and the program
under test is left as it is. Writes through shared memory maps alone would pass unseen. Linux 5.8 and newer.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dschat.code_execution.inside.seccomp import Instruction, set_no_new_privileges


class _Call(NamedTuple):
    """A system call that changes files."""

    x86_64: int | None
    aarch64: int | None
    descriptor: int | None
    """Which argument is the file's descriptor; with `path` that of the folder that the path starts from."""
    path: int | None = None
    """Which argument is the path."""
    flags: int | None = None
    """Which argument says whether a file is opened for changes."""


_CALLS = {
    "open": _Call(2, None, None, 0, flags=1), "creat": _Call(85, None, None, 0),
    "openat": _Call(257, 56, 0, 1, flags=2),
    "write": _Call(1, 64, 0), "pwrite64": _Call(18, 68, 0), "writev": _Call(20, 66, 0), "pwritev": _Call(296, 70, 0),
    "pwritev2": _Call(328, 287, 0), "sendfile": _Call(40, 71, 0), "copy_file_range": _Call(326, 285, 2),
    "truncate": _Call(76, 45, None, 0), "ftruncate": _Call(77, 46, 0), "fallocate": _Call(285, 47, 0),
    "fsync": _Call(74, 82, 0), "fdatasync": _Call(75, 83, 0),
    "rename": _Call(82, None, None, 0), "renameat": _Call(264, 38, 0, 1), "renameat2": _Call(316, 276, 0, 1),
    "mkdir": _Call(83, None, None, 0), "mkdirat": _Call(258, 34, 0, 1), "rmdir": _Call(84, None, None, 0),
    "unlink": _Call(87, None, None, 0), "unlinkat": _Call(263, 35, 0, 1),
    "link": _Call(86, None, None, 1), "linkat": _Call(265, 37, 2, 3),
    "symlink": _Call(88, None, None, 1), "symlinkat": _Call(266, 36, 1, 2),
    "chmod": _Call(90, None, None, 0), "fchmod": _Call(91, 52, 0), "fchmodat": _Call(268, 53, 0, 1),
}  # fmt: skip
_CHANGES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06  # linux/filter.h
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
_NUMBER_OFFSET = 0
_INSTRUCTION = struct.Struct("HBBI")
_NOTICE = struct.Struct("QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("QqiI")  # struct seccomp_notif_resp
_RECEIVE, _SEND = 0xC0502100, 0xC0182101
_CONTINUE = 1
_CURRENT_FOLDER = -100  # AT_FDCWD
_LONGEST_PATH = 4096


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_uint16), ("instructions", ctypes.c_char_p)]


def can_watch() -> bool:
    """Whether the kernel and this machine's processor are known to do it."""
    release = tuple(int(part) for part in platform.release().split(".")[:2] if part.isdigit())
    return platform.system() == "Linux" and platform.machine() in _SECCOMP and release >= (5, 8)


def submit(to_watcher: socket.socket) -> None:
    """Have this process, its threads and its children ask the watcher at the other end before each system call that
    may change a file; for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    numbers = _numbers()
    program = [
        Instruction(_LOAD, 0, 0, _NUMBER_OFFSET),
        *(Instruction(_JUMP_EQUAL, len(numbers) - i, 0, number) for i, number in enumerate(numbers)),
        Instruction(_RETURN, 0, 0, _ALLOW),
        Instruction(_RETURN, 0, 0, _ASK),
    ]
    code = b"".join(_INSTRUCTION.pack(*instruction) for instruction in program)
    set_no_new_privileges(libc)
    call = _SECCOMP[platform.machine()]
    listener = libc.syscall(call, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.byref(_Program(len(program), code)))
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp user notification refused")
    socket.send_fds(to_watcher, [b"listener"], [listener])
    os.close(listener)


def watch(from_watched: socket.socket, child: int, folder: Path, *, kill_before: int) -> list[str]:
    """Let a process that calls `submit` go on to its end, or to its death.

    Args:
        from_watched: the other end of what the process gave to `submit`.
        child: the process.
        folder: the files that count.
        kill_before: number, from 1, of the change before which it is killed; 0: none.
    Returns:
        the changes that it came to, as `rename state/.tmp-step-4`; the last of a killed process was not made.
    """
    _, received, _, _ = socket.recv_fds(from_watched, 16, 1)
    if not received:  # it ended before it could ask
        return []
    listener = received[0]
    root = str(folder.resolve())
    changes: list[str] = []
    ready = select.poll()
    ready.register(listener, select.POLLIN)
    try:
        while any(event & select.POLLIN for _, event in ready.poll()):
            notice = array.array("B", bytes(_NOTICE.size))
            try:
                fcntl.ioctl(listener, _RECEIVE, notice)
            except FileNotFoundError:  # who asked is dead
                continue
            number, task, _, call, _, _, *arguments = _NOTICE.unpack(notice)
            change = _change(task, call, arguments, root)
            if change is not None:
                changes.append(change)
                if len(changes) == kill_before:
                    os.kill(child, signal.SIGKILL)
                    return changes
            try:
                fcntl.ioctl(listener, _SEND, _ANSWER.pack(number, 0, 0, _CONTINUE))
            except FileNotFoundError:
                continue
    finally:
        os.close(listener)
    return changes


@cache
def _numbers() -> dict[int, str]:
    """Names of this machine's calls."""
    machine = platform.machine()
    found = {getattr(call, machine): name for name, call in _CALLS.items()}
    return {number: name for number, name in found.items() if number is not None}


def _change(task: int, number: int, arguments: list[int], root: str) -> str | None:
    """What a call would do below `root`, None if nothing."""
    name = _numbers()[number]
    call = _CALLS[name]
    if call.flags is not None and not arguments[call.flags] & _CHANGES:
        return None
    try:
        path = os.readlink(f"/proc/{task}/{_start(call, arguments)}")
        if call.path is not None:
            path = os.path.normpath(os.path.join(path, _text(task, arguments[call.path])))
    except OSError:  # the task was killed, or the descriptor is none
        return None
    below = path == root or path.startswith(root + os.sep)
    return f"{name} {os.path.relpath(path, root)}" if below else None


def _start(call: _Call, arguments: list[int]) -> str:
    """Name in /proc/<task>/ of the file that a call is about, or of the folder where its path starts."""
    if call.descriptor is None:
        return "cwd"
    descriptor = ctypes.c_int(arguments[call.descriptor] & 0xFFFFFFFF).value
    return "cwd" if descriptor == _CURRENT_FOLDER else f"fd/{descriptor}"


def _text(task: int, address: int) -> str:
    """The text at an address of a task's memory."""
    with open(f"/proc/{task}/mem", "rb", buffering=0) as memory:
        return os.pread(memory.fileno(), _LONGEST_PATH, address).split(b"\0", 1)[0].decode(errors="surrogateescape")

"""An allow-list of system calls for one Python program with threads, as a classic BPF program (seccomp(2)).

Everything else fails with EPERM: sockets, new processes and programs, signals to anybody, changes of the file system,
other processes' memory, limits and priorities, namespaces, keys, and every kind of memory outside the address space.
"""

from __future__ import annotations

import ctypes
import errno
import platform
from collections.abc import Sequence
from typing import NamedTuple

from dschat.code_execution.inside.switch_user import call_prctl

# fmt: off
_X86_64 = {
    "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9,
    "mprotect": 10, "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16,
    "pread64": 17, "pwrite64": 18, "readv": 19, "writev": 20, "access": 21, "select": 23, "sched_yield": 24,
    "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "nanosleep": 35, "getpid": 39, "clone": 56, "exit": 60,
    "uname": 63, "fcntl": 72, "getcwd": 79, "gettimeofday": 96, "getrlimit": 97, "getrusage": 98, "sysinfo": 99,
    "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108, "getppid": 110, "sigaltstack": 131,
    "prctl": 157, "gettid": 186, "time": 201, "futex": 202, "sched_getaffinity": 204, "getdents64": 217,
    "restart_syscall": 219, "clock_gettime": 228, "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231,
    "openat": 257, "newfstatat": 262, "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273,
    "dup3": 292, "prlimit64": 302, "getcpu": 309, "getrandom": 318, "statx": 332, "rseq": 334, "clone3": 435,
    "close_range": 436, "openat2": 437, "faccessat2": 439,
}
_AARCH64 = {
    "getcwd": 17, "dup": 23, "dup3": 24, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "close": 57,
    "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "readv": 65, "writev": 66, "pread64": 67, "pwrite64": 68,
    "pselect6": 72, "ppoll": 73, "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98,
    "set_robust_list": 99, "nanosleep": 101, "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115,
    "sched_getaffinity": 123, "sched_yield": 124, "restart_syscall": 128, "sigaltstack": 132, "rt_sigaction": 134,
    "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163, "getrusage": 165,
    "prctl": 167, "getcpu": 168, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175,
    "getgid": 176, "getegid": 177, "gettid": 178, "sysinfo": 179, "brk": 214, "munmap": 215, "mremap": 216,
    "clone": 220, "mmap": 222, "mprotect": 226, "madvise": 233, "prlimit64": 261, "getrandom": 278, "statx": 291,
    "rseq": 293, "clone3": 435, "close_range": 436, "openat2": 437, "faccessat2": 439,
}
# fmt: on


class _Architecture(NamedTuple):
    audit_id: int
    numbers: dict[str, int]


ARCHITECTURES = {
    "x86_64": _Architecture(0xC000003E, _X86_64),
    "aarch64": _Architecture(0xC00000B7, _AARCH64),
}

# Newer forms of allowed calls, whose arguments lie in memory where a filter cannot see them: "not implemented" makes
# the C library fall back to the older form.
_FALL_BACK = ("clone3", "openat2", "faccessat2")

_CLONE_THREAD = 0x00010000
_CLONE_NEW_NAMESPACES = 0x7E020080
_FCNTL_COMMANDS = (0, 1, 2, 3, 1030)  # F_DUPFD F_GETFD F_SETFD F_GETFL F_DUPFD_CLOEXEC; F_SETOWN would send signals
_IOCTL_REQUESTS = (0x5401, 0x5450, 0x5451)  # TCGETS (isatty) FIONCLEX FIOCLEX
_PR_SET_NAME = 15
_O_TRUNC = 0x200

# linux/filter.h
_LOAD, _JUMP_EQUAL, _JUMP_GREATER_EQUAL, _AND, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _ARGUMENTS_OFFSET = 0, 4, 16  # struct seccomp_data
_ALLOW = 0x7FFF0000
_ERRNO = 0x00050000
_KILL_PROCESS = 0x80000000

_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2


class Instruction(NamedTuple):
    """One classic BPF instruction; jumps are counted in instructions to skip."""

    code: int
    if_true: int
    if_false: int
    value: int


class _SockFilter(ctypes.Structure):
    _fields_ = [("code", ctypes.c_uint16), ("jt", ctypes.c_uint8), ("jf", ctypes.c_uint8), ("k", ctypes.c_uint32)]


class _SockFprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_uint16), ("filter", ctypes.POINTER(_SockFilter))]


def _load(offset: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, offset)


def _load_argument(index: int) -> Instruction:
    """The low half of an argument: all arguments checked here are 32 bits wide in the kernel."""
    return _load(_ARGUMENTS_OFFSET + 8 * index)


def _return(action: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, action)


def _allow_values(argument: int, values: Sequence[int], *, mask: int = 0xFFFFFFFF) -> list[Instruction]:
    """Allow if the argument under the mask is one of the values, refuse otherwise."""
    checks = [Instruction(_JUMP_EQUAL, len(values) - i, 0, value) for i, value in enumerate(values)]
    return [
        _load_argument(argument),
        Instruction(_AND, 0, 0, mask),
        *checks,
        _return(_ERRNO | errno.EPERM),
        _return(_ALLOW),
    ]


def filter_program(machine: str, *, deny_truncation: bool = False) -> list[Instruction]:
    """The filter.

    Args:
        machine: as platform.machine() says.
        deny_truncation: refuse to open files with O_TRUNC, which Landlock does not see before its ABI 3.
    Raises:
        OSError: no list for this kind of machine.
    """
    if machine not in ARCHITECTURES:
        raise OSError(errno.ENOSYS, f"no list of system calls for {machine}, only for {', '.join(ARCHITECTURES)}")
    audit_id, numbers = ARCHITECTURES[machine]
    # allowed with certain arguments only
    checked = {
        # threads, but no processes
        "clone": _allow_values(0, [_CLONE_THREAD], mask=_CLONE_THREAD | _CLONE_NEW_NAMESPACES),
        "fcntl": _allow_values(1, _FCNTL_COMMANDS),
        "ioctl": _allow_values(1, _IOCTL_REQUESTS),
        "prctl": _allow_values(0, [_PR_SET_NAME]),
        "prlimit64": _allow_values(0, [0]),  # of the caller alone
        "open": _allow_values(1, [0], mask=_O_TRUNC if deny_truncation else 0),
        "openat": _allow_values(2, [0], mask=_O_TRUNC if deny_truncation else 0),
    }
    checked |= {name: [_return(_ERRNO | errno.ENOSYS)] for name in _FALL_BACK}
    program = [
        _load(_ARCHITECTURE_OFFSET),
        Instruction(_JUMP_EQUAL, 1, 0, audit_id),
        _return(_KILL_PROCESS),
        _load(_NUMBER_OFFSET),
    ]
    for name, number in numbers.items():
        then = checked.get(name, [_return(_ALLOW)])
        program += [Instruction(_JUMP_EQUAL, 0, len(then), number), *then]
    return [*program, _return(_ERRNO | errno.EPERM)]


class SeccompFilter:
    """A filter ready to be installed."""

    def __init__(self, libc: ctypes.CDLL, *, deny_truncation: bool = False) -> None:
        """Build it for this machine; OSError as in filter_program()."""
        program = filter_program(platform.machine(), deny_truncation=deny_truncation)
        self._libc = libc
        self._instructions = (_SockFilter * len(program))(*(_SockFilter(*instruction) for instruction in program))
        self._program = _SockFprog(len(program), self._instructions)

    def install(self) -> None:
        """Bind this process, for good, to the allow-list. Needs no_new_privs."""
        if self._libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(self._program), 0, 0):
            raise OSError(ctypes.get_errno(), "seccomp filter refused")


def set_no_new_privileges(libc: ctypes.CDLL) -> None:
    """Make sure that no execve can give this process more rights."""
    call_prctl(libc, _PR_SET_NO_NEW_PRIVS, 1)

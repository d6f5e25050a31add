"""The list of system calls, against the kernel's headers and an interpreter of the filter's language."""

from __future__ import annotations

import errno
import platform
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from dschat.code_execution.inside.seccomp import ARCHITECTURES, Instruction, filter_program

HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS, 0x80000000
MACHINES = sorted(ARCHITECTURES)
DENIED = (
    "fork vfork execve execveat kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal pidfd_open "
    "ptrace process_vm_readv process_vm_writev socket socketpair connect bind sendto sendmsg shmget msgget semget "
    "memfd_create io_uring_setup io_uring_enter bpf perf_event_open userfaultfd add_key keyctl unshare setns "
    "mount umount2 chroot pivot_root mknod mknodat mkdirat unlinkat renameat linkat symlinkat fchmodat fchownat "
    "truncate ftruncate setpriority sched_setaffinity sched_setscheduler setrlimit setuid setresuid setgroups "
    "capset open_by_handle_at pipe2 inotify_init1 timer_create reboot init_module kexec_load ioperm iopl "
    "personality seccomp"
).split()


def run(program: Sequence[Instruction], audit_id: int, number: int, *arguments: int) -> int:
    """What the filter answers; an interpreter of the instructions it uses, after the kernel's documentation."""
    data = {0: number, 4: audit_id} | {16 + 8 * i: value & 0xFFFFFFFF for i, value in enumerate(arguments)}
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = program[at]
        at += 1
        match code:
            case 0x20:  # BPF_LD | BPF_W | BPF_ABS
                accumulator = data.get(value, 0)
            case 0x54:  # BPF_ALU | BPF_AND | BPF_K
                accumulator &= value
            case 0x15:  # BPF_JMP | BPF_JEQ | BPF_K
                at += if_true if accumulator == value else if_false
            case 0x06:  # BPF_RET | BPF_K
                return value
            case _:
                raise AssertionError(f"unknown instruction {code:#x}")


def numbers_in_header(machine: str) -> dict[str, int]:
    """Names and numbers as the kernel's own header defines them, for a 64-bit machine."""
    path = HEADERS[machine]
    if not path.exists():
        pytest.skip(f"{path} is not installed")
    text = path.read_text()
    found = {name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)}
    if machine == "aarch64":
        found["newfstatat"] = found["fstatat"]  # renamed at the end of the header
    return found


@pytest.mark.parametrize("machine", MACHINES)
def test_numbers_are_the_kernels(machine: str) -> None:
    header = numbers_in_header(machine)
    listed = ARCHITECTURES[machine].numbers
    assert {name: number for name, number in listed.items() if header.get(name) != number} == {}


@pytest.mark.parametrize("machine", MACHINES)
def test_everything_else_is_refused(machine: str) -> None:
    audit_id, numbers = ARCHITECTURES[machine]
    program = filter_program(machine)
    for number in [*range(1024), 0x40000000, 0x40000001, 0x40000027, 0xFFFFFFFF]:
        if number not in numbers.values():
            assert run(program, audit_id, number) == EPERM
    header = numbers_in_header(machine)
    assert not {name for name in DENIED if name in header} & set(numbers)


@pytest.mark.parametrize("machine", MACHINES)
def test_other_architectures_are_killed(machine: str) -> None:
    program, numbers = filter_program(machine), ARCHITECTURES[machine].numbers
    others = {0x40000003, 0x40000028, *(entry.audit_id for entry in ARCHITECTURES.values())}
    for audit_id in others - {ARCHITECTURES[machine].audit_id}:
        assert run(program, audit_id, numbers["read"]) == KILL


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("name", "arguments", "answer"),
    [
        ("read", (3,), ALLOW),
        ("clone", (0x3D0F00,), ALLOW),  # as pthread_create calls it
        ("clone", (17,), EPERM),  # fork
        ("clone", (0x4111,), EPERM),  # vfork
        ("clone", (0x3D0F00 | 0x10000000,), EPERM),  # a user namespace
        ("clone3", (0, 88), ENOSYS),
        ("fcntl", (1, 3), ALLOW),
        ("fcntl", (1, 8), EPERM),  # F_SETOWN
        ("fcntl", (1, 10), EPERM),  # F_SETSIG
        ("fcntl", (1, 1031), EPERM),  # F_SETPIPE_SZ
        ("ioctl", (1, 0x5401), ALLOW),
        ("ioctl", (0, 0x5412), EPERM),  # TIOCSTI
        ("prctl", (15,), ALLOW),
        ("prctl", (4, 1), EPERM),  # PR_SET_DUMPABLE
        ("prlimit64", (0, 7), ALLOW),
        ("prlimit64", (1, 7), EPERM),
        ("openat", (0, 0, 0o1001), ALLOW),
    ],
)
def test_some_are_allowed_with_some_arguments(machine: str, name: str, arguments: tuple[int, ...], answer: int) -> None:
    audit_id, numbers = ARCHITECTURES[machine]
    assert run(filter_program(machine), audit_id, numbers[name], *arguments) == answer


@pytest.mark.parametrize("machine", MACHINES)
def test_truncation_can_be_refused(machine: str) -> None:
    audit_id, numbers = ARCHITECTURES[machine]
    program = filter_program(machine, deny_truncation=True)
    assert run(program, audit_id, numbers["openat"], 0, 0, 0o1000) == EPERM
    assert run(program, audit_id, numbers["openat"], 0, 0, 0o1) == ALLOW
    if "open" in numbers:
        assert run(program, audit_id, numbers["open"], 0, 0o1000) == EPERM


def test_an_unknown_machine_is_told_so() -> None:
    with pytest.raises(OSError, match="riscv64, only for x86_64, aarch64"):
        filter_program("riscv64")


@pytest.mark.skipif(platform.machine() not in ARCHITECTURES, reason="no list for this machine")
def test_the_kernel_takes_the_filter_and_holds_to_it(tmp_path: Path) -> None:
    (tmp_path / "canary").write_text("alive")
    code = """
import ctypes, os, sys
from dschat.code_execution.inside.seccomp import SeccompFilter, set_no_new_privileges
libc = ctypes.CDLL(None, use_errno=True)
seccomp = SeccompFilter(libc, deny_truncation=True)
set_no_new_privileges(libc)
seccomp.install()
for action in (os.fork, lambda: os.open(sys.argv[1], os.O_RDONLY | os.O_TRUNC), lambda: os.kill(os.getpid(), 0)):
    try:
        action()
    except PermissionError:
        print("refused")
print(open(sys.argv[1]).read())
"""
    words = [sys.executable, "-c", code, str(tmp_path / "canary")]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "refused\n" * 3 + "alive\n"

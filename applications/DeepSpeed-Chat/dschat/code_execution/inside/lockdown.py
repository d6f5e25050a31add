"""What a child does between the fork and the program: user id, limits, no_new_privs, Landlock, seccomp."""

from __future__ import annotations

import ctypes
import os
import resource

from dschat.code_execution.inside.landlock import SEES_TRUNCATION_SINCE, LandlockRuleset
from dschat.code_execution.inside.protocol import DESCRIPTORS, STACK_BYTES, Settings
from dschat.code_execution.inside.seccomp import SeccompFilter, set_no_new_privileges
from dschat.code_execution.inside.switch_user import call_prctl, switch_user

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE = 1, 4
_SIGKILL = 9
_MAX_DESCRIPTORS = 32
_HIGHEST_DESCRIPTOR = 1024  # a zygote has a dozen open


class Lockdown:
    """Everything that can be prepared before the fork, so that a child has only to apply it."""

    def __init__(self, settings: Settings) -> None:
        """Prepare; OSError where the kernel lacks what the settings ask for."""
        self._settings = settings
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._landlock = None
        if settings.readable_paths is not None:
            self._landlock = LandlockRuleset(
                self._libc, readable=settings.readable_paths, writable=settings.writable_paths
            )
        blind = self._landlock is not None and self._landlock.abi < SEES_TRUNCATION_SINCE
        self._seccomp = SeccompFilter(self._libc, deny_truncation=blind) if settings.seccomp else None

    @property
    def landlock_abi(self) -> int | None:
        """Version of the kernel's interface, None where Landlock is not used."""
        return None if self._landlock is None else self._landlock.abi

    def apply(self, *, cpu_seconds: int, memory_bytes: int, threads: int, zygote: int) -> None:
        """Lock this process in, for good; OSError where that fails.

        Args:
            cpu_seconds: the kernel kills after that much; the supervisor watches finer.
            memory_bytes: of address space.
            threads: including the main one.
            zygote: process id of the parent, whose death is this process's death.
        """
        if self._settings.uid is not None:
            switch_user(self._libc, self._settings.uid, keep_read_access=self._settings.keep_read_access)
        call_prctl(self._libc, _PR_SET_DUMPABLE, 0)  # no core file, and no debugger of the same user
        call_prctl(self._libc, _PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != zygote:
            raise OSError("the zygote is gone")
        self._set_limits(cpu_seconds, memory_bytes, threads)
        set_no_new_privileges(self._libc)
        if self._landlock is not None:
            self._landlock.apply()
        os.closerange(DESCRIPTORS, _HIGHEST_DESCRIPTOR)
        if self._seccomp is not None:
            self._seccomp.install()

    def _set_limits(self, cpu_seconds: int, memory_bytes: int, threads: int) -> None:
        # the soft limit of CPU time is a signal that says why; a program that ignores it meets the hard one
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        limits = {
            resource.RLIMIT_AS: memory_bytes,
            resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if self._settings.other_tasks is not None:
            limits[resource.RLIMIT_NPROC] = self._settings.other_tasks + threads
        for name, value in limits.items():
            value = _at_most(value, resource.getrlimit(name)[1])
            resource.setrlimit(name, (value, value))
        # programs ask for a larger stack, or for one without a limit: the address space bounds it as well
        _, hard = resource.getrlimit(resource.RLIMIT_STACK)
        resource.setrlimit(resource.RLIMIT_STACK, (_at_most(STACK_BYTES, hard), hard))


def _at_most(value: int, hard: int) -> int:
    return value if hard == resource.RLIM_INFINITY else min(value, hard)

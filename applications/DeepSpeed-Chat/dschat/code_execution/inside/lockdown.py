"""What a child does between the fork and the program: user id, limits, no_new_privs, Landlock, seccomp."""

from __future__ import annotations

import ctypes
import os
import resource

from dschat.code_execution.inside.landlock import SEES_TRUNCATION_SINCE, LandlockRuleset
from dschat.code_execution.inside.protocol import DESCRIPTORS, STACK_BYTES, Settings
from dschat.code_execution.inside.seccomp import SeccompFilter, set_no_new_privileges

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_KEEPCAPS = 1, 4, 8
_SIGKILL = 9
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
_MAX_DESCRIPTORS = 32
_HIGHEST_DESCRIPTOR = 1024  # a zygote has a dozen open


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


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
            self._switch_user(self._settings.uid)
        self._prctl(_PR_SET_DUMPABLE, 0)  # no core file, and no debugger of the same user
        self._prctl(_PR_SET_PDEATHSIG, _SIGKILL)
        if os.getppid() != zygote:
            raise OSError("the zygote is gone")
        self._set_limits(cpu_seconds, memory_bytes, threads)
        set_no_new_privileges(self._libc)
        if self._landlock is not None:
            self._landlock.apply()
        os.closerange(DESCRIPTORS, _HIGHEST_DESCRIPTOR)
        if self._seccomp is not None:
            self._seccomp.install()

    def _switch_user(self, uid: int) -> None:
        if self._settings.keep_read_access:
            self._prctl(_PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        if self._settings.keep_read_access:
            self._keep_only_read_access()

    def _keep_only_read_access(self) -> None:
        """Of root's capabilities keep the one that reads every path, or else the one that ignores modes.

        Landlock decides which paths; without either, a child could not import from an interpreter in root's home.
        """
        header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
        held = (_CapabilityData * 2)()
        self._check(self._libc.capget(ctypes.byref(header), held))
        search, override = 1 << _CAP_DAC_READ_SEARCH, 1 << _CAP_DAC_OVERRIDE
        kept = search if held[0].permitted & search else held[0].permitted & override
        wanted = (_CapabilityData * 2)(_CapabilityData(kept, kept, 0), _CapabilityData(0, 0, 0))
        self._check(self._libc.capset(ctypes.byref(header), wanted))

    def _set_limits(self, cpu_seconds: int, memory_bytes: int, threads: int) -> None:
        # the soft limit of CPU time is a signal that says why; a program that ignores it meets the hard one
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + 1))
        limits = {
            resource.RLIMIT_AS: memory_bytes,
            resource.RLIMIT_STACK: STACK_BYTES,
            resource.RLIMIT_NOFILE: _MAX_DESCRIPTORS,
            resource.RLIMIT_FSIZE: 0,
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
        }
        if self._settings.other_tasks is not None:
            limits[resource.RLIMIT_NPROC] = self._settings.other_tasks + threads
        for name, value in limits.items():
            _, hard = resource.getrlimit(name)
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(name, (value, value))

    def _prctl(self, option: int, value: int) -> None:
        self._check(self._libc.prctl(option, value, 0, 0, 0))

    @staticmethod
    def _check(result: int) -> None:
        if result:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

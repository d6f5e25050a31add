"""Landlock (landlock(7)): only listed paths can be opened, no TCP, no signals or abstract sockets to the outside."""

from __future__ import annotations

import ctypes
import fcntl
import os
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446  # system calls, the same on every architecture
_GET_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 1, 1 << 2, 1 << 3
_FILE_SYSTEM_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
"""Number of rights that each version of the interface knows; they are the lowest bits."""
_NETWORK_SINCE, _SCOPES_SINCE = 4, 6
_ALL_NETWORK_RIGHTS = _ALL_SCOPES = 0b11

_OUT_OF_THE_WAY = 64
"""A child gives its low descriptors other meanings before the rules are applied."""

SEES_TRUNCATION_SINCE = 3


class _RulesetAttributes(ctypes.Structure):
    _fields_ = [("file_system", ctypes.c_uint64), ("network", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("allowed", ctypes.c_uint64), ("parent_fd", ctypes.c_int32)]


def abi_version(libc: ctypes.CDLL) -> int:
    """The version of the kernel's interface, 0 where Landlock is missing or switched off."""
    return max(0, int(libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _GET_VERSION)))


class LandlockRuleset:
    """Rules ready to be applied."""

    def __init__(self, libc: ctypes.CDLL, *, readable: Sequence[str], writable: Sequence[str]) -> None:
        """Collect the rules.

        Args:
            libc: loaded with use_errno.
            readable: files and folders; missing ones are passed over.
            writable: files.
        Raises:
            OSError: the kernel lacks Landlock or refuses a rule.
        """
        self._libc = libc
        self.abi = abi_version(libc)
        if self.abi == 0:
            raise OSError("this kernel has no Landlock, or it is switched off")
        rights = (1 << _FILE_SYSTEM_RIGHTS[min(self.abi, max(_FILE_SYSTEM_RIGHTS))]) - 1
        attributes = _RulesetAttributes(rights, _ALL_NETWORK_RIGHTS, _ALL_SCOPES)
        known = 1 + (self.abi >= _NETWORK_SINCE) + (self.abi >= _SCOPES_SINCE)
        size = ctypes.c_size_t(known * ctypes.sizeof(ctypes.c_uint64))
        low = self._call(_CREATE_RULESET, ctypes.byref(attributes), size, 0)
        self._ruleset = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY)
        os.close(low)
        for path in readable:
            if Path(path).exists():
                self._allow(path, _READ_FILE | (_READ_DIR if Path(path).is_dir() else 0))
        for path in writable:
            self._allow(path, _READ_FILE | _WRITE_FILE)

    def _allow(self, path: str, rights: int) -> None:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = _PathBeneath(rights, descriptor)
            self._call(_ADD_RULE, self._ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(descriptor)

    def apply(self) -> None:
        """Bind this process, for good, to the rules. Needs no_new_privs."""
        self._call(_RESTRICT_SELF, self._ruleset, 0)

    def _call(self, *arguments: object) -> int:
        result = int(self._libc.syscall(*arguments))
        if result < 0:
            raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
        return result

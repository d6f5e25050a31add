"""From root to another user, with no more capabilities than asked for."""

from __future__ import annotations

import ctypes
import os

_PR_SET_KEEPCAPS = 8
_CAPABILITY_VERSION = 0x20080522
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def switch_user(libc: ctypes.CDLL, uid: int, *, keep_read_access: bool = False) -> None:
    """Become a user for good; OSError where that fails.

    Args:
        libc: loaded with use_errno.
        uid: also the group id, and the only one.
        keep_read_access: keep, of root's capabilities, the one that reads every path, or else the one that ignores
            modes. Landlock decides which paths; without either, a child could not import from root's home.
    """
    if keep_read_access:
        call_prctl(libc, _PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    _limit_capabilities(libc, (_CAP_DAC_READ_SEARCH, _CAP_DAC_OVERRIDE) if keep_read_access else ())


def _limit_capabilities(libc: ctypes.CDLL, candidates: tuple[int, ...]) -> None:
    """Keep the first candidate that is held, and nothing else; said outright, as securebits may keep what is not."""
    header = _CapabilityHeader(_CAPABILITY_VERSION, 0)
    held = (_CapabilityData * 2)()
    _check(libc.capget(ctypes.byref(header), held))
    kept = next((1 << number for number in candidates if held[0].permitted & 1 << number), 0)
    wanted = (_CapabilityData * 2)(_CapabilityData(kept, kept, 0), _CapabilityData(0, 0, 0))
    _check(libc.capset(ctypes.byref(header), wanted))


def call_prctl(libc: ctypes.CDLL, option: int, value: int) -> None:
    """prctl(2) with one argument; OSError where it fails."""
    _check(libc.prctl(option, value, 0, 0, 0))


def _check(result: int) -> None:
    if result:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

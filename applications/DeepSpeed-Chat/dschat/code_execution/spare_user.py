"""User ids that nobody uses, one for each sandbox that root opens."""

from __future__ import annotations

import os
import pwd
import socket
from pathlib import Path

_FIRST, _NUMBER = 60800, 256
"""systemd leaves 60706 to 61183 free of users, and so does Debian; they exist in containers with 65536 ids too."""


class SpareUser:
    """A user id that is this process's alone until it is released.

    With one each, neither signals nor counts of processes reach from one sandbox into another.
    """

    def __init__(self) -> None:
        """Take the first free id; OSError if none is left."""
        for uid in range(_FIRST, _FIRST + _NUMBER):
            claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                # a name in memory that the kernel frees with its owner
                claim.bind(f"\0dschat-sandbox-user-{uid}")
            except OSError:
                claim.close()
                continue
            if _known(uid):
                claim.close()
                continue
            self.uid, self._claim = uid, claim
            return
        raise OSError(f"no user id from {_FIRST} to {_FIRST + _NUMBER - 1} is free for a sandbox")

    def release(self) -> None:
        """Let others have it."""
        self._claim.close()


def can_switch_user() -> bool:
    """Whether this process is root, and root of a namespace that has the spare ids."""
    if os.geteuid() != 0:
        return False
    for line in Path("/proc/self/uid_map").read_text().splitlines():
        first, _, number = (int(word) for word in line.split())
        if first <= _FIRST and first + number >= _FIRST + _NUMBER:
            return True
    return False


def _known(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True

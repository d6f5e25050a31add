"""One run per output folder."""

from __future__ import annotations

import fcntl
import logging
import os
import socket
import time
from pathlib import Path
from types import TracebackType

from dschat.errors import UserError

logger = logging.getLogger(__name__)

LOCK_NAME = ".lock"


class RunLock:
    """Holds `<output>/.lock` until it is closed or its process ends, however it ends: the kernel frees it.

    On network file systems without lock support (some NFS set-ups) two nodes do not see each other's locks, or there
    are none.
    """

    def __init__(self, folder: Path) -> None:
        """Take the lock.

        Raises:
            UserError: another process has it, which is named, or nothing can be written in the folder.
        """
        try:
            self._file = (folder / LOCK_NAME).open("a+", encoding="utf-8")
        except OSError as error:
            raise UserError(
                f"--output_dir {folder} cannot be written to ({error.strerror}); choose another folder"
            ) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            owner = self._file.read().strip() or "another process"
            self._file.close()
            raise UserError(
                f"--output_dir {folder} is in use by {owner}; wait for it, stop it, or choose another folder"
            ) from None
        except OSError as error:
            logger.warning("%s has no locks (%s): nothing keeps a second run out of it", folder, error.strerror)
        self._file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"process {os.getpid()} on {socket.gethostname()} since {since}\n")
        self._file.flush()

    def close(self) -> None:
        """Free the folder."""
        self._file.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""A JSON-lines file that grows row by row and survives a kill at any moment."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from dschat.errors import UserError


class AppendedFile:
    """Rows that are on disk before `append` returns.

    A line that a kill tore is dropped when the file is opened again; anything else that is not one JSON object a line
    is refused and left as it is. One process at a time has the file open.
    """

    def __init__(self, path: Path, *, flag: str) -> None:
        """Open or make the file and read its rows.

        Args:
            path: its folder is made where it is missing.
            flag: the flag that named it, for messages.
        Raises:
            UserError: not writable, in use, or a file of another kind.
        """
        self.path = path
        self._flag = flag
        self._file = _opened(path, flag)
        try:
            self.rows = self._read()
        except BaseException:
            self._file.close()
            raise
        """The rows so far, those appended by this process included."""

    def append(self, row: dict[str, Any]) -> None:
        """Write one row through to the disk."""
        self._file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        self._sync()
        self.rows.append(row)

    def drop_last(self) -> dict[str, Any]:
        """Take the last row back, and return it."""
        self._file.seek(0)
        content = self._file.read()
        self._file.truncate(content.rstrip(b"\n").rfind(b"\n") + 1)
        self._file.seek(0, os.SEEK_END)
        self._sync()
        return self.rows.pop()

    def close(self) -> None:
        """Close the file, so that another process may open it."""
        self._file.close()

    def __enter__(self) -> AppendedFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _read(self) -> list[dict[str, Any]]:
        self._file.seek(0)
        content = self._file.read()
        lines = content.split(b"\n")
        torn = lines.pop()
        rows = [self._parsed(number, line) for number, line in enumerate(lines, start=1) if line.strip()]
        if torn:
            self._mend(torn, whole_bytes=len(content) - len(torn), rows=rows)
        self._file.seek(0, os.SEEK_END)
        return rows

    def _parsed(self, number: int, line: bytes) -> dict[str, Any]:
        try:
            row = json.loads(line)
        except ValueError:
            row = None
        if not isinstance(row, dict):
            raise UserError(
                f"--{self._flag} {self.path}:{number} is no JSON object, so this file is not one to continue; "
                "name another file"
            )
        return row

    def _mend(self, torn: bytes, *, whole_bytes: int, rows: list[dict[str, Any]]) -> None:
        """End the last line where only its line break is missing, else cut it off."""
        if not torn.startswith(b"{"):
            self._parsed(len(rows) + 1, torn)
        try:
            rows.append(json.loads(torn))
        except ValueError:
            self._file.truncate(whole_bytes)
        else:
            self._file.seek(0, os.SEEK_END)
            self._file.write(b"\n")
        self._sync()


def _opened(path: Path, flag: str) -> Any:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise UserError(f"--{flag} {path} cannot be written ({error.strerror}); name another file") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise UserError(f"--{flag} {path} is being written by another process; wait for it to end") from None
    return file


def write_whole(path: Path, content: str) -> None:
    """Write a file aside and rename it, so that a reader never sees half of it.

    Raises:
        UserError: the folder cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        aside.write_text(content, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror}); name another file") from error

"""The finished rows of a run that is not finished: `<result file>.partial`.

Its first line holds the settings; a run with other settings may not go on with it. Rows are written in the order in
which batches finish. A batch counts when all its rows are there: batches are computed again as they were, so that a run
that was stopped ends with the same file, byte for byte, as one that was not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from dschat.answering.appended_file import AppendedFile, write_whole
from dschat.errors import UserError


@dataclass(frozen=True)
class Finished:
    """One answered row."""

    row: int
    """Number of the prompt, from 0."""
    tokens: int
    """Length of the answer, its end token included; 0 where it was not generated."""
    record: dict[str, Any]
    """What the result file will hold."""


def partial_path(output: Path) -> Path:
    """Where the finished rows are until the result file is whole."""
    return output.with_name(f"{output.name}.partial")


def settings_path(output: Path) -> Path:
    """What made a result file, and its closing numbers."""
    return output.with_name(f"{output.name}.run.json")


def length_batches(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of rows of similar length, the longest first, so that memory runs out at once or never.

    Args:
        lengths: tokens of each row's prompt.
        batch_size: most rows of a batch.
    """
    order = sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


class Journal:
    """An unfinished run on disk."""

    def __init__(self, output: Path, settings: dict[str, Any]) -> None:
        """Open or begin the run that makes `output`.

        Args:
            output: the result file.
            settings: everything that shapes it, JSON-serialisable.
        Raises:
            UserError: an unfinished run with other settings is there, or it cannot be written.
        """
        self._output = output
        self._settings = settings
        path = partial_path(output)
        self._file = AppendedFile(path, flag="output")
        header = self._file.rows[0] if self._file.rows else None
        if header is None:
            self._file.append({"settings": settings})
        elif header.get("settings") != settings:
            self._file.close()
            changed = differing(header.get("settings"), settings)
            raise UserError(
                f"{path} is an unfinished run with other settings ({changed}); go on with those, delete it, or name "
                "another --output"
            )
        self.finished = {row["row"]: Finished(**row) for row in self._file.rows[1:]}
        """The rows so far, by number."""

    def append(self, finished: Finished) -> None:
        """Write a row through to the disk."""
        self._file.append(asdict(finished))
        self.finished[finished.row] = finished

    def missing(self, batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
        """The batches of which a row is missing."""
        return [batch for batch in batches if not all(row in self.finished for row in batch)]

    def finish(self, closing: dict[str, Any]) -> None:
        """Write the result file in the order of the rows, and what made it; then remove the journal."""
        description = {"settings": self._settings, "summary": closing}
        write_whole(settings_path(self._output), json.dumps(description, indent=2, ensure_ascii=False) + "\n")
        lines = [json.dumps(self.finished[row].record, ensure_ascii=False) + "\n" for row in sorted(self.finished)]
        write_whole(self._output, "".join(lines))
        partial_path(self._output).unlink()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def finished_before(output: Path, settings: dict[str, Any]) -> dict[str, Any] | None:
    """The closing numbers of a finished run with these settings, None where there is no result file.

    Raises:
        UserError: the result file is there and was made in another way.
    """
    if not output.exists():
        return None
    advice = "delete it or name another --output"
    try:
        description = json.loads(settings_path(output).read_bytes())
    except (OSError, ValueError):
        raise UserError(f"{output} is there already, and nothing says what made it; {advice}") from None
    if description.get("settings") != settings:
        changed = differing(description.get("settings"), settings)
        raise UserError(f"{output} is there already, made with other settings ({changed}); {advice}")
    return description["summary"]


def differing(before: Any, now: dict[str, Any]) -> str:
    """The settings that differ, in words."""
    if not isinstance(before, dict):
        return "unreadable"
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    return ", ".join(f"{name} {before.get(name)} instead of {now.get(name)}" for name in names)

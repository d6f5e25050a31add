"""Named numbers of a run: averaged over ranks, written to metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

import torch
from torch import Tensor

from dschat.runtime.distributed import is_main_process, reduce_sum, union
from dschat.runtime.faults import fault_point

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = logging.getLogger(__name__)


Number = Tensor | float


@dataclass(frozen=True)
class Sums:
    """Named sums of values with the sums of their weights: what means over tokens, answers and ranks are made of.

    Nothing is moved to the host or between ranks before `means`.
    """

    parts: Mapping[str, tuple[tuple[Number, Number], ...]] = field(default_factory=dict)
    """Pairs (sum of values, sum of weights), scalars, by name; their order is the order of addition."""

    @classmethod
    def of(cls, pairs: Mapping[str, tuple[Number, Number]]) -> Sums:
        """One pair of (sum of values, sum of weights) for each name."""
        return cls({name: (pair,) for name, pair in pairs.items()})

    def __add__(self, other: Sums) -> Sums:
        """Both together."""
        names = [*self.parts, *(name for name in other.parts if name not in self.parts)]
        return Sums({name: self.parts.get(name, ()) + other.parts.get(name, ()) for name in names})

    def means(self, device: torch.device) -> dict[str, float]:
        """Weighted means over all ranks, NaN where weights sum to 0; all ranks call it together."""
        # a rank without a usable row may lack some names
        names = union(list(self.parts))
        if not names:
            return {}
        nothing = torch.zeros(2, dtype=torch.float64, device=device)
        local = torch.stack([self._total(name, device) if name in self.parts else nothing for name in names])
        totals = reduce_sum(local).tolist()
        pairs = zip(names, totals, strict=True)
        return {name: total / weight if weight else math.nan for name, (total, weight) in pairs}

    def _total(self, name: str, device: torch.device) -> Tensor:
        """Sum of values and sum of weights, [2] float64."""
        scalars = [
            [torch.as_tensor(x, dtype=torch.float64).to(device).reshape(()) for x in p] for p in self.parts[name]
        ]
        return torch.stack([torch.stack(pair) for pair in scalars]).sum(dim=0)


class MetricsLog:
    """Writes one JSON object per step to a file and the same numbers to TensorBoard; a no-op off rank 0.

    What cannot be written costs its numbers and one warning, not the run.
    """

    def __init__(self, path: Path, tensorboard: Path | None, *, done: int | None = None) -> None:
        """
        Args:
            path: the file; its folder is made.
            tensorboard: folder of the TensorBoard files, None for none.
            done: steps that a resumed run has behind it: lines of later steps are cut off, and new ones appended, so
                that no step appears twice. None for a new file.
        """
        self._file: TextIO | None = None
        self._writer: SummaryWriter | None = None
        self._silent: set[object] = set()
        self._names = (path, tensorboard)
        if not is_main_process():
            return
        with self._forgiving(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if done is not None:
                cut_back(path, done)
            self._file = path.open("w" if done is None else "a", encoding="utf-8")
        if tensorboard is not None:
            # slow to import, and only some runs want it
            from torch.utils.tensorboard import SummaryWriter

            with self._forgiving(tensorboard):
                self._writer = SummaryWriter(str(tensorboard), purge_step=None if done is None else done + 1)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the numbers of one step; NaN and infinity are written as null, which JSON has."""
        path, tensorboard = self._names
        if self._file is not None:
            finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            with self._forgiving(path):
                self._file.write(json.dumps({"step": step, **finite}) + "\n")
                self._file.flush()
        if self._writer is not None:
            with self._forgiving(tensorboard):
                for name, value in metrics.items():
                    self._writer.add_scalar(name, value, step)
        if is_main_process():
            fault_point("metrics.written")

    def close(self) -> None:
        """Flush and close both files."""
        for name, file in zip(self._names, (self._file, self._writer), strict=True):
            if file is not None:
                with self._forgiving(name):
                    file.close()

    @contextmanager
    def _forgiving(self, place: Path | None) -> Iterator[None]:
        """Within the body a failure to write there is a warning, the first time."""
        try:
            yield
        except OSError as error:
            if place not in self._silent:
                self._silent.add(place)
                logger.warning(
                    "%s cannot be written (%s); training goes on without these numbers", place, error.strerror
                )

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cut_back(path: Path, done: int) -> None:
    """Cut a metrics.jsonl off behind its lines of the first `done` steps, and with them a last line that is torn."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        logger.warning("%s is gone; the numbers of steps up to %d are lost, new ones begin a new file", path, done)
        return
    kept, last = 0, 0
    for line in content.splitlines(keepends=True):
        step = _step_of(line)
        if step is None or step > done:
            break
        kept, last = kept + len(line), step
    if last < done:
        logger.warning("%s ends at step %d, but the run goes on after step %d: it will have a gap", path, last, done)
    os.truncate(path, kept)


def _step_of(line: bytes) -> int | None:
    """The step of a whole line, None for anything else."""
    try:
        step = json.loads(line)["step"] if line.endswith(b"\n") else None
    except (ValueError, TypeError, KeyError):
        return None
    return step if isinstance(step, int) else None

"""Named numbers of a run: averaged over ranks, written to metrics.jsonl and TensorBoard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

from dschat.runtime.distributed import is_main_process, reduce_sum, union


class WeightedMeans:
    """Means over all ranks of values that weigh differently, such as per-token values of unequal answers."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sums: dict[str, list[Tensor]] = {}

    def add(self, name: str, total: Tensor | float, weight: Tensor | float) -> None:
        """Add a sum of values and the sum of their weights, as scalars; nothing is moved to the host here."""
        pair = [torch.as_tensor(x, dtype=torch.float64).to(self._device).reshape(()) for x in (total, weight)]
        self._sums.setdefault(name, []).append(torch.stack(pair))

    def reduce(self) -> dict[str, float]:
        """The means over all ranks, NaN where weights sum to 0, and start again; all ranks call it together."""
        # a rank without a usable row may lack some names
        names = union(list(self._sums))
        if not names:
            return {}
        nothing = [torch.zeros(2, dtype=torch.float64, device=self._device)]
        local = torch.stack([torch.stack(self._sums.get(name, nothing)).sum(dim=0) for name in names])
        totals = reduce_sum(local).tolist()
        self._sums = {}
        pairs = zip(names, totals, strict=True)
        return {name: total / weight if weight else math.nan for name, (total, weight) in pairs}


class MetricsLog:
    """Writes one JSON object per step to a new file and the same numbers to TensorBoard; a no-op off rank 0."""

    def __init__(self, path: Path, tensorboard: Path | None) -> None:
        self._file = None
        self._writer = None
        if not is_main_process():
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", encoding="utf-8")
        if tensorboard is not None:
            # slow to import, and only some runs want it
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(tensorboard))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Record the numbers of one step; NaN and infinity are written as null, which JSON has."""
        if self._file is None:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._file.write(json.dumps({"step": step, **finite}) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in metrics.items():
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close both files."""
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

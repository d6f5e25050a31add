"""One run over several processes' lives: where it goes on, when it saves, how it is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import torch

from dschat.config.runtime import SavingConfig
from dschat.errors import Stopped, TrainingFault, UserError
from dschat.runtime import files
from dschat.runtime.distributed import barrier, explain_lost_ranks, is_main_process
from dschat.runtime.faults import fault_point
from dschat.runtime.metrics import MetricsLog
from dschat.runtime.resume import ResumePoint, make_way
from dschat.runtime.state import TrainingState
from dschat.runtime.stopping import StopRequests
from dschat.runtime.store import StateStore

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.jsonl"


@dataclass(frozen=True)
class Continuation:
    """Where a run goes on, and where it saves."""

    output: Path
    """The run's folder, which no other process writes to."""
    saving: SavingConfig
    """When to save."""
    store: StateStore
    """Where to save."""
    point: ResumePoint | None
    """The state to go on from, None to start."""
    device: torch.device
    """Where this rank computes."""


class ResumableRun:
    """Within the body a run may be stopped and killed; all ranks enter and call everything together.

    >>> with ResumableRun(continuation, state) as run, run.metrics_log(None) as log:
    ...     for step in run.steps(total):
    ...         log.write(step, train(step))
    ...         run.step_done(step, last=step == total)
    """

    def __init__(self, continuation: Continuation, state: TrainingState) -> None:
        """
        Args:
            continuation: where the run goes on, and where it saves.
            state: what to save; entering the body restores it.
        """
        self._output = continuation.output
        self._saving = continuation.saving
        self._store = continuation.store
        self._point = continuation.point
        self._device = continuation.device
        self._state = state
        self._stop = StopRequests()
        self._started = time.perf_counter()
        self._step = self.done

    @property
    def done(self) -> int:
        """Steps that were done before this process began."""
        return self._point.manifest.step if self._point else 0

    @property
    def seconds(self) -> float:
        """Wall time of training so far, over all resumptions."""
        before = self._point.manifest.run_seconds if self._point else 0.0
        return before + time.perf_counter() - self._started

    def metrics_log(self, tensorboard: Path | None) -> MetricsLog:
        """The run's metrics.jsonl, new or cut back to where the run goes on."""
        return MetricsLog(self._output / METRICS_NAME, tensorboard, done=self.done if self._point else None)

    def steps(self, total: int) -> Iterator[int]:
        """Numbers of the steps that are left of `total`."""
        self._step = self.done
        if self.done > total:
            raise UserError(f"--resume: the state is of step {self.done}, but this run has only {total} steps")
        if self._point:
            logger.info("going on after step %d of %d, from %s", self.done, total, self._point.folder)
            if self.done == total:
                logger.info("the run was finished: nothing is left to do")
        while self._step < total:
            self._step += 1
            yield self._step

    def step_done(self, step: int, *, last: bool) -> None:
        """After everything of a step, its metrics included, is written: save if it is time, stop if that was asked.

        Raises:
            Stopped: the state is saved.
            TrainingFault: it could not be.
        """
        fault_point("loop.step_done")
        stopping = self._stop.agreed(self._device)
        interval = self._saving.save_steps
        if last or stopping or (interval and step % interval == 0):
            saved = self._save(step)
            if stopping and not last:
                self._leave(step, saved)

    def _save(self, step: int) -> bool:
        if self._saving.save_only_model:
            return False
        if is_main_process() and (self._output / METRICS_NAME).is_file():
            files.sync_file(self._output / METRICS_NAME)
        return self._store.save(self._state, step, run_seconds=self.seconds)

    def _leave(self, step: int, saved: bool) -> None:
        if not saved:
            raise TrainingFault(
                f"stopped by {self._stop.reason} after step {step}, and no state was saved; {self._store.last_good()}"
            )
        raise Stopped(
            f"stopped by {self._stop.reason} after step {step}; everything is saved, go on with the same command and "
            "--resume auto"
        )

    def __enter__(self) -> ResumableRun:
        if is_main_process():
            for folder in (self._output, self._store.folder):
                files.sweep(folder)
            make_way(self._output, self._point)
        barrier()
        if self._point:
            self._state.restore(
                self._point.folder,
                step=self._point.manifest.step,
                saved_ranks=self._point.manifest.world_size,
                scratch=files.aside(self._store.folder / "reshaped"),
            )
        if not self._saving.save_only_model:  # who cannot save may as well stop at once
            self._stop.__enter__()
        self._started = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.__exit__(kind, error, trace)
        if isinstance(error, RuntimeError) and not isinstance(error, TrainingFault | Stopped):
            explain_lost_ranks(error, step=self._step)

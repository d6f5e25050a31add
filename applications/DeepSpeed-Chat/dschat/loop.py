"""The one loop of all stages: steps, guard, evaluation, log, save, always in this order."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from dschat.config.runtime import GuardConfig
from dschat.runtime.guards import BrokenSteps, NonFinite
from dschat.runtime.logging import step_progress
from dschat.runtime.run import Continuation, ResumableRun
from dschat.runtime.state import TrainingState
from dschat.runtime.training_engine import TrainingEngine


class Stage(Protocol):
    """What a stage of training does at each step; all ranks call every method together."""

    @property
    def title(self) -> str:
        """Name of the progress bar."""
        ...

    @property
    def shown_metrics(self) -> tuple[str, ...]:
        """Metrics beside it."""
        ...

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        ...

    def update(self, step: int) -> dict[str, float]:
        """Train one step, number `step` from 1, and return its metrics.

        Raises:
            NonFinite: a number of it is not finite; no weights have changed.
        """
        ...

    def rows_of(self, fault: NonFinite, step: int) -> list[int]:
        """Numbers of this rank's training rows that a fault of the step belongs to; none if it is another rank's."""
        ...

    def evaluation_due(self, step: int) -> bool:
        """Whether to evaluate after a step; after step 0, before the first one."""
        ...

    def evaluate(self, step: int) -> dict[str, float]:
        """Metrics on held-out rows after `step` steps, under names that start with `eval_`."""
        ...

    def saving_due(self, step: int) -> bool:
        """Whether to save models after a step."""
        ...

    def save(self, step: int) -> None:
        """Write the models as folders."""
        ...


class TrainingLoop:
    """Runs the steps of a stage over its engines, from where the run goes on to its end."""

    def __init__(
        self,
        engines: Mapping[str, TrainingEngine],
        guards: GuardConfig,
        goes_on: Continuation,
        *,
        tensorboard: Path | None,
    ) -> None:
        """
        Args:
            engines: everything that is trained, by name.
            guards: what to do about numbers that are not finite.
            goes_on: where the run goes on, and where it saves.
            tensorboard: folder of the TensorBoard files, None for none.
        """
        self.broken = BrokenSteps(guards, engines, goes_on.store.last_good)
        """Steps that were left out; a stage tells it what became of its updates."""
        self.state = TrainingState(engines, device=goes_on.device)
        """What is saved; whatever else changes with training has to be registered here before `run`."""
        self.state.register("broken_steps", self.broken)
        self._run = ResumableRun(goes_on, self.state)
        self._tensorboard = tensorboard

    def run(self, stage: Stage) -> None:
        """Train to the end; all ranks call it together."""
        total = stage.total_steps
        with (
            self._run as run,
            run.metrics_log(self._tensorboard) as log,
            step_progress(total, stage.title) as progress,
        ):
            if run.done == 0 and stage.evaluation_due(0):
                log.write(0, stage.evaluate(0))
            for step in run.steps(total):
                metrics = self._guarded_update(stage, step)
                if stage.evaluation_due(step):
                    metrics |= stage.evaluate(step)
                metrics["run_seconds"] = run.seconds
                log.write(step, metrics)
                progress.advance(step, metrics, stage.shown_metrics)
                if stage.saving_due(step):
                    stage.save(step)
                run.step_done(step, last=step == total)

    def _guarded_update(self, stage: Stage, step: int) -> dict[str, float]:
        """The step's metrics, or those of a step that was left out."""
        started = time.perf_counter()
        try:
            metrics = stage.update(step)
        except NonFinite as fault:
            self.broken.handle(fault, stage.rows_of(fault, step))
            metrics = {"step_seconds": time.perf_counter() - started}
        return metrics | {"skipped_steps": self.broken.skipped}

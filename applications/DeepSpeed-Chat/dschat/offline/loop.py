"""The one training loop of steps 1 and 2: epochs, evaluation, metrics. What is learned is the objective's business."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from dschat.config.training import ScheduleConfig, SupervisedConfig
from dschat.data.order import epoch_order, rank_rows, steps_per_epoch
from dschat.runtime.distributed import rank, reduce_sum, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.guards import BrokenSteps, NonFinite
from dschat.runtime.logging import step_progress
from dschat.runtime.metrics import Sums
from dschat.runtime.run import ResumableRun
from dschat.runtime.stepping import step_all

Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class BatchResult:
    """What an objective says about one micro-batch."""

    loss_sum: Tensor
    """Scalar: the loss summed over everything that counts."""
    metrics: Sums
    """What else is averaged."""


class Objective(Protocol):
    """What a step learns: how rows become a batch, and a batch a loss."""

    def collate(self, items: Rows) -> Any:
        """A padded batch of tokenised rows."""
        ...

    def weight(self, batch: Any) -> int:
        """How much of the batch counts: tokens with a label, or pairs."""
        ...

    def num_tokens(self, batch: Any) -> int:
        """Real tokens of the batch, for the rate."""
        ...

    def __call__(self, engine: Any, batch: Any) -> BatchResult:
        """Run the model on a batch that lies on its device."""
        ...


@dataclass(frozen=True)
class LoopSettings:
    """What the loop needs to know of the run."""

    training: SupervisedConfig
    schedule: ScheduleConfig
    seed: int
    output: Path
    tensorboard: Path | None
    title: str
    shown_metrics: tuple[str, ...]

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all ranks."""
        return self.training.per_device_train_batch_size * self.schedule.gradient_accumulation_steps * world_size()

    def total_updates(self, rows: int) -> int:
        """Optimizer steps in all, for a training set of `rows` rows."""
        steps = self.schedule.num_train_epochs * steps_per_epoch(rows, self.rows_per_step)
        return min(steps, self.schedule.max_steps) if self.schedule.max_steps else steps


class SupervisedLoop:
    """Trains one engine on one objective; all ranks run it together."""

    def __init__(
        self,
        engine: Any,
        objective: Objective,
        settings: LoopSettings,
        *,
        train: Rows,
        evaluation: Rows,
        device: torch.device,
        broken: BrokenSteps,
    ) -> None:
        self._engine = engine
        self._objective = objective
        self._settings = settings
        self._train = train
        self._evaluation = evaluation
        self._device = device
        self._broken = broken

    def run(self, save: Callable[[int], None], run: ResumableRun) -> None:
        """Train to the end; evaluate before, after every epoch, at the end and at every --eval_interval.

        Args:
            save: called with the step number after every evaluation but the first.
            run: says which steps are left, and is told of every one that is done.
        """
        settings = self._settings
        total = settings.total_updates(len(self._train))
        per_epoch = steps_per_epoch(len(self._train), settings.rows_per_step)
        interval = settings.training.eval_interval
        with (
            run,
            run.metrics_log(settings.tensorboard) as log,
            step_progress(total, settings.title) as progress,
        ):
            if run.done == 0:
                log.write(0, self.evaluate())
            for step in run.steps(total):
                metrics = self._guarded_update(step)
                due = step == total or step % per_epoch == 0 or (interval and step % interval == 0)
                if due:
                    metrics |= self.evaluate()
                metrics["run_seconds"] = run.seconds
                log.write(step, metrics)
                progress.advance(step, metrics, settings.shown_metrics)
                if due:
                    save(step)
                run.step_done(step, last=step == total)

    def _guarded_update(self, step: int) -> dict[str, float]:
        """The step's metrics, or those of a step that was left out."""
        started = time.perf_counter()
        try:
            metrics = self.update(step)
        except NonFinite as fault:
            rows = self._rows(step)
            positions = range(len(rows)) if fault.positions is None else fault.positions
            self._broken.handle(fault, [row for position in positions for row in rows[position]])
            metrics = {"step_seconds": time.perf_counter() - started}
        return metrics | {"skipped_steps": self._broken.skipped}

    def update(self, step: int) -> dict[str, float]:
        """One optimizer step, number `step` from 1; every token or pair of it weighs the same on every rank."""
        started = time.perf_counter()
        self._engine.train()
        batches = self._micro_batches(step)
        local = [self._objective.weight(batch) if real else 0 for batch, real in batches]
        total = reduce_sum(torch.tensor(float(sum(local)), dtype=torch.float64, device=self._device)).clamp_min(1.0)
        # DeepSpeed averages over ranks and accumulated micro-batches; undo both
        scale = (world_size() * len(batches) / total).float()
        sums = Sums()
        losses: list[Tensor] = []
        for number, ((batch, real), weight) in enumerate(zip(batches, local, strict=True), start=1):
            result = self._objective(self._engine, batch)
            fault_point("train.backward")
            # a rank that has run out of rows takes part with weight zero
            loss = result.loss_sum if real else result.loss_sum * 0.0
            self._engine.backward(loss * scale)
            losses.append(loss.detach())
            if number < len(batches):
                self._engine.step()  # only counts
            sums += Sums.of({"loss": (loss.detach(), float(weight))})
            if real:
                sums += result.metrics
        if step_all({"model": self._engine}, {"training loss": torch.stack(losses)}, step=step):
            self._broken.succeeded()
        else:
            self._broken.overflowed()
        tokens = sum(self._objective.num_tokens(batch) for batch, real in batches if real)
        return self._step_metrics(sums, tokens, started, step)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Loss and metrics on held-out rows, each row once, under names that start with `eval_`."""
        self._engine.eval()
        size = self._settings.training.per_device_eval_batch_size
        limit = self._settings.training.eval_iters * size * world_size()
        count = min(len(self._evaluation), limit) if limit else len(self._evaluation)
        sums = Sums()
        for batch_number in range(math.ceil(count / (size * world_size()))):
            start = (batch_number * world_size() + rank()) * size
            mine = [self._evaluation[i] for i in range(start, min(start + size, count))]
            batch = self._objective.collate(mine or [self._evaluation[0]])
            result = self._objective(self._engine, batch.to(self._device))
            if mine:
                sums += Sums.of({"loss": (result.loss_sum, float(self._objective.weight(batch)))}) + result.metrics
        return {f"eval_{name}": value for name, value in sums.means(self._device).items()}

    def _micro_batches(self, step: int) -> list[tuple[Any, bool]]:
        """This rank's micro-batches of one optimizer step, and whether each holds real rows."""
        batches = []
        for rows in self._rows(step):
            items = [self._train[i] for i in rows] or [self._train[0]]
            batches.append((self._objective.collate(items).to(self._device), bool(rows)))
        return batches

    def _rows(self, step: int) -> list[list[int]]:
        """Numbers of the training rows in each of this rank's micro-batches of one optimizer step."""
        settings = self._settings
        epoch, within = divmod(step - 1, steps_per_epoch(len(self._train), settings.rows_per_step))
        order = epoch_order(len(self._train), seed=settings.seed, epoch=epoch)
        mine = rank_rows(order, step=within, global_batch=settings.rows_per_step, rank=rank(), world=world_size())
        size = settings.training.per_device_train_batch_size
        count = settings.schedule.gradient_accumulation_steps
        return [mine[number * size : (number + 1) * size] for number in range(count)]

    def _step_metrics(self, sums: Sums, tokens: int, started: float, step: int) -> dict[str, float]:
        all_tokens = reduce_sum(torch.tensor(float(tokens), dtype=torch.float64, device=self._device))
        metrics = sums.means(self._device)
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            metrics["grad_norm"] = float(norm)
        metrics["learning_rate"] = self._engine.get_lr()[0]
        metrics["epoch"] = step / steps_per_epoch(len(self._train), self._settings.rows_per_step)
        metrics["step_seconds"] = time.perf_counter() - started
        metrics["tokens_per_second"] = float(all_tokens) / metrics["step_seconds"]
        return metrics

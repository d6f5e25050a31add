"""What the stages on data fixed beforehand have in common: rows, micro-batches, one step of one model, evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from dschat.config.training import ScheduleConfig, SupervisedConfig
from dschat.data.order import epoch_order, rank_rows, steps_per_epoch
from dschat.models.reward_model import hugging_face_model
from dschat.preparation import Prepared
from dschat.runtime.distributed import rank, reduce_sum, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.guards import BrokenSteps, NonFinite
from dschat.runtime.metrics import Sums
from dschat.runtime.model_folders import link_files, save_model
from dschat.runtime.stepping import step_all
from dschat.runtime.training_engine import TrainingEngine

Rows = Sequence[Mapping[str, Any]]


class Batch(Protocol):
    """A padded batch of tokenised rows."""

    def to(self: B, device: torch.device) -> B:
        """The same on another device."""
        ...


B = TypeVar("B", bound=Batch)


@dataclass(frozen=True)
class BatchResult:
    """What an objective says about one micro-batch."""

    loss_sum: Tensor
    """Scalar: the loss summed over everything that counts."""
    metrics: Sums
    """What else is averaged."""


class Objective(Protocol[B]):
    """What a stage learns: how rows become a batch, and a batch a loss."""

    def collate(self, items: Rows) -> B:
        """A padded batch of tokenised rows."""
        ...

    def weight(self, batch: B) -> int:
        """How much of the batch counts: tokens with a label, or pairs."""
        ...

    def num_tokens(self, batch: B) -> int:
        """Real tokens of the batch, for the rate."""
        ...

    def __call__(self, engine: TrainingEngine, batch: B) -> BatchResult:
        """Run the model on a batch that lies on its device."""
        ...


@dataclass(frozen=True)
class Batches:
    """How the training rows become optimizer steps."""

    training: SupervisedConfig
    schedule: ScheduleConfig
    seed: int
    """Of the order."""
    rows: int
    """Of the training set."""

    @property
    def rows_per_step(self) -> int:
        """Rows of one optimizer step over all ranks."""
        return self.training.per_device_train_batch_size * self.schedule.gradient_accumulation_steps * world_size()

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one pass over the rows."""
        return steps_per_epoch(self.rows, self.rows_per_step)

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all."""
        steps = self.schedule.num_train_epochs * self.steps_per_epoch
        return min(steps, self.schedule.max_steps) if self.schedule.max_steps else steps

    def of_this_rank(self, step: int) -> list[list[int]]:
        """Numbers of the training rows in each of this rank's micro-batches of one optimizer step, from 1."""
        epoch, within = divmod(step - 1, self.steps_per_epoch)
        order = epoch_order(self.rows, seed=self.seed, epoch=epoch)
        mine = rank_rows(order, step=within, global_batch=self.rows_per_step, rank=rank(), world=world_size())
        size = self.training.per_device_train_batch_size
        count = self.schedule.gradient_accumulation_steps
        return [mine[number * size : (number + 1) * size] for number in range(count)]


class OfflineSteps(Generic[B]):
    """The steps of a stage that trains one model on rows; see `dschat.loop.Stage`.

    It evaluates before the first step, after every epoch, at the end and at every --eval_interval, and saves then too,
    but before the first step.
    """

    def __init__(
        self,
        engine: TrainingEngine,
        objective: Objective[B],
        batches: Batches,
        prepared: Prepared,
        broken: BrokenSteps,
        *,
        title: str,
        shown_metrics: tuple[str, ...],
    ) -> None:
        """
        Args:
            engine: trains the model.
            objective: what is learned.
            batches: which rows a step takes.
            prepared: rows to train and to evaluate on, folder, device.
            broken: is told what became of every update.
            title, shown_metrics: of the progress bar.
        """
        self.title = title
        self.shown_metrics = shown_metrics
        self._engine = engine
        self._objective = objective
        self._batches = batches
        self._prepared = prepared
        self._train = prepared.data.train
        self._evaluation = prepared.data.evaluation
        self._broken = broken
        self._device = prepared.device

    @property
    def total_steps(self) -> int:
        """Optimizer steps in all."""
        return self._batches.total_steps

    def evaluation_due(self, step: int) -> bool:
        """Whether to evaluate after a step."""
        interval = self._batches.training.eval_interval
        at_interval = interval > 0 and step % interval == 0
        return step == self.total_steps or step % self._batches.steps_per_epoch == 0 or at_interval

    def saving_due(self, step: int) -> bool:
        """Whether to save the model after a step."""
        return self.evaluation_due(step)

    def rows_of(self, fault: NonFinite, step: int) -> list[int]:
        """Numbers of this rank's training rows that a fault belongs to, whose positions are micro-batches."""
        rows = self._batches.of_this_rank(step)
        positions = range(len(rows)) if fault.positions is None else fault.positions
        return [row for position in positions for row in rows[position]]

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
    def evaluate(self, step: int) -> dict[str, float]:
        """Loss and metrics on held-out rows, each row once, under names that start with `eval_`."""
        self._engine.eval()
        size = self._batches.training.per_device_eval_batch_size
        limit = self._batches.training.eval_iters * size * world_size()
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

    def save(self, step: int) -> None:
        """Write the model as `<output>/step_<n>` and link it from `<output>` itself."""
        folder = self._prepared.output / f"step_{step}"
        save_model(hugging_face_model(self._engine.module), self._prepared.tokenizer, folder)
        link_files(folder, self._prepared.output)

    def _micro_batches(self, step: int) -> list[tuple[B, bool]]:
        """This rank's micro-batches of one optimizer step, and whether each holds real rows."""
        batches = []
        for rows in self._batches.of_this_rank(step):
            items = [self._train[i] for i in rows] or [self._train[0]]
            batches.append((self._objective.collate(items).to(self._device), bool(rows)))
        return batches

    def _step_metrics(self, sums: Sums, tokens: int, started: float, step: int) -> dict[str, float]:
        all_tokens = reduce_sum(torch.tensor(float(tokens), dtype=torch.float64, device=self._device))
        metrics = sums.means(self._device)
        norm = self._engine.get_global_grad_norm()
        if norm is not None:
            metrics["grad_norm"] = float(norm)
        metrics["learning_rate"] = self._engine.get_lr()[0]
        metrics["epoch"] = step / self._batches.steps_per_epoch
        metrics["step_seconds"] = time.perf_counter() - started
        metrics["tokens_per_second"] = float(all_tokens) / metrics["step_seconds"]
        return metrics

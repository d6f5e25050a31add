"""Numbers that are not finite: noticed by every rank together, before an optimizer step spreads them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dschat.config.runtime import GuardConfig
from dschat.errors import TrainingFault, UserError
from dschat.runtime.distributed import gather, rank, reduce_max, union
from dschat.runtime.training_engine import TrainingEngine

logger = logging.getLogger(__name__)

SHOWN_ROWS = 20


class NonFinite(TrainingFault):
    """A step whose numbers are NaN or infinite; no weights have changed by them. Every rank raises it together."""

    def __init__(self, what: str, *, step: int, culprit: int | None, positions: Sequence[int] | None) -> None:
        """
        Args:
            what: which numbers.
            step: the step in progress.
            culprit: the last rank that has such numbers, None where that cannot be told.
            positions: which rows or micro-batches of this rank they belong to, None where that cannot be told.
        """
        where = "on every rank" if culprit is None else f"on rank {culprit}"
        super().__init__(
            f"the {what} became NaN or infinite at step {step} {where}; no weights were changed by it: try a lower "
            "learning rate, --dtype bf16 instead of fp16, or look at this step's rewards"
        )
        self.what = what
        self.positions = positions


def check_finite(values: Mapping[str, Tensor], *, step: int) -> None:
    """Raise NonFinite on all ranks if any value on any rank is NaN or infinite; all ranks call it together.

    Args:
        values: of this rank, by what they are; [B, ...], a row or micro-batch each.
        step: the step in progress, for the message.
    """
    broken = [~torch.isfinite(tensor.detach()).flatten(1).all(dim=1) for tensor in map(_as_rows, values.values())]
    # rank + 1, so that 0 means nobody
    culprits = reduce_max(torch.stack([rows.any() for rows in broken]).to(torch.int64) * (rank() + 1)).tolist()
    for name, rows, culprit in zip(values, broken, culprits, strict=True):
        if culprit:
            raise NonFinite(name, step=step, culprit=culprit - 1, positions=rows.nonzero().flatten().tolist())


def _as_rows(values: Tensor) -> Tensor:
    return values[:, None] if values.dim() == 1 else values


class BrokenSteps:
    """Decides about steps with numbers that are not finite: the end of the run, or leaving them out (`--on_nan`)."""

    def __init__(
        self, guards: GuardConfig, engines: Mapping[str, TrainingEngine], last_good: Callable[[], str]
    ) -> None:
        """
        Args:
            guards: whether to stop, and after how many such steps in a row.
            engines: models to search for broken weights, by name.
            last_good: says from where a run can go on.
        """
        self._guards = guards
        self._engines = engines
        self._last_good = last_good
        self.skipped = 0
        """Steps left out so far."""
        self.in_a_row = 0
        """Steps left out one after the other until now; overflows of fp16 do not count."""

    def handle(self, fault: NonFinite, rows: Sequence[int]) -> None:
        """Count a broken step, or end the run; all ranks call it together.

        Args:
            fault: what broke.
            rows: numbers of this rank's rows that belong to it; empty on ranks without a part in it.
        Raises:
            TrainingFault: the run is to stop, weights are broken, or too many steps were left out in a row.
        """
        all_rows = sorted({row for part in gather(list(rows)) for row in part})
        shown = ", ".join(map(str, all_rows[:SHOWN_ROWS])) + (", ..." if len(all_rows) > SHOWN_ROWS else "")
        report = f"{fault} (training rows {shown})" if all_rows else str(fault)
        weight = self._broken_weight()
        if weight is not None:
            raise TrainingFault(f"{report}; the weight {weight} is broken itself, {self._last_good()}") from fault
        if self._guards.on_nan == "stop":
            raise TrainingFault(f"{report}; {self._last_good()}, --on_nan skip leaves such steps out") from fault
        self.leave_out(report)

    def leave_out(self, report: str, *, advice: str | None = None) -> None:
        """Count a step that is left out, or end the run if it is one too many; all ranks call it together.

        Args:
            report: why it is.
            advice: what to do if that is so every time.
        Raises:
            TrainingFault: as many steps in a row were left out as --max_skipped_steps says.
        """
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= self._guards.max_skipped_steps:
            last = f"{advice}; {self._last_good()}" if advice else self._last_good()
            raise TrainingFault(f"{report}; the last {self.in_a_row} steps were all left out, that is enough: {last}")
        logger.warning("a step is left out: %s", report)

    def overflowed(self) -> None:
        """Count a step that fp16 left out while it looks for a loss scale, which ends by itself."""
        self.skipped += 1

    def succeeded(self) -> None:
        """Note that a step changed the weights."""
        self.in_a_row = 0

    def state_dict(self) -> dict[str, int]:
        """Counts so far."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]

    def _broken_weight(self) -> str | None:
        """The first weight that is not finite on any rank, None if all are."""
        mine = next((f"{role}: {name}" for role, e in self._engines.items() for name in _broken(e.module)), None)
        return next((name for name in gather(mine) if name is not None), None)


def _broken(model: nn.Module) -> list[str]:
    # under ZeRO-3 a rank holds its part of a weight apart
    parts = ((name, getattr(p, "ds_tensor", p)) for name, p in model.named_parameters())
    return [name for name, part in parts if not bool(torch.isfinite(part.detach()).all())]


def raise_together(error: UserError | TrainingFault | None, device: torch.device) -> None:
    """Raise on all ranks the error that any rank met, so that nobody waits for the others; all ranks call it.

    Args:
        error: what this rank met, or None; where ranks met both kinds, all raise a UserError.
        device: where this rank computes.
    """
    kinds = (TrainingFault, UserError)
    mine = next((number for number, kind in enumerate(kinds, start=1) if isinstance(error, kind)), 0)
    worst = int(reduce_max(torch.tensor(mine, device=device)))
    if worst:
        raise kinds[worst - 1](union([str(error)] if mine == worst else [])[0]) from error

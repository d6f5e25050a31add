"""Faults that every rank must notice together, before an optimizer step spreads them."""

from __future__ import annotations

import torch
from torch import Tensor

from dschat.errors import TrainingFault, UserError
from dschat.runtime.distributed import rank, reduce_max, union


def check_finite(values: Tensor, *, step: int, what: str) -> None:
    """Raise TrainingFault on all ranks if any value on any rank is NaN or infinite; all ranks call it together.

    Args:
        values: of this rank, any shape such as [N].
        step: the step in progress, for the message.
        what: what they are, for the message.
    """
    broken = ~torch.isfinite(values.detach()).all()
    # rank + 1, so that 0 means nobody
    culprit = int(reduce_max(broken.to(torch.int64) * (rank() + 1)).item())
    if culprit:
        raise TrainingFault(
            f"the {what} became NaN or infinite at step {step} on rank {culprit - 1}; no weights were changed in this "
            "step: try a lower learning rate, --dtype bf16 instead of fp16, or look at this step's rewards"
        )


def raise_together(error: UserError | None, device: torch.device) -> None:
    """Raise on all ranks the UserError that any rank met, so that nobody waits for the others; all ranks call it.

    Args:
        error: what this rank met, or None.
        device: where this rank computes.
    """
    failed = torch.tensor(int(error is not None), device=device)
    if reduce_max(failed).item():
        raise UserError(union([] if error is None else [str(error)])[0]) from error

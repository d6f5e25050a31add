"""fp16: models that are trained together skip an optimizer step together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


def step_together(engines: Sequence[Any]) -> None:
    """Step every engine, or none of them where scaled gradients of any overflowed; all ranks call it together.

    A step that is skipped leaves weights, optimizer and learning rate as they are and lowers the loss scale, in each
    engine. Between optimizer steps it is `engine.step()` for each.

    Args:
        engines: DeepSpeed engines at ZeRO stages 1 to 3, backward done, at the same micro-batch of a step.
    """
    at_boundary = all(engine.is_gradient_accumulation_boundary() for engine in engines)
    # a list: asking is collective, every rank asks every engine
    overflowed = at_boundary and any([engine.optimizer.has_overflow() for engine in engines])
    for engine in engines:
        if overflowed:
            with _claimed(engine.optimizer):
                engine.step()
        else:
            engine.step()


@contextmanager
def _claimed(optimizer: Any) -> Iterator[None]:
    """Within the body the optimizer finds an overflow, whatever its gradients are."""
    # an attribute of the object hides its class's method, which the step asks
    optimizer.has_overflow = lambda *_: True
    try:
        yield
    finally:
        del optimizer.has_overflow

"""Optimizer steps of several models: all of them, or none where a number is not finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dschat.runtime.distributed import ZERO_PARTITIONED
from dschat.runtime.faults import fault_point
from dschat.runtime.guards import NonFinite, check_finite
from dschat.runtime.training_engine import TrainingEngine

MIN_LOSS_SCALE = 1.0


def step_all(engines: Mapping[str, TrainingEngine], losses: Mapping[str, Tensor], *, step: int) -> bool:
    """Step every engine at the end of its accumulated micro-batches, or drop the gradients of all.

    Args:
        engines: DeepSpeed engines after the last backward pass of an optimizer step, by name.
        losses: of this rank's micro-batches [M] by what they are.
        step: the step in progress, for messages.
    Returns:
        whether weights changed; False where fp16 gradients overflowed, after which the loss scale is smaller.
    Raises:
        NonFinite: a loss or a gradient; no weights changed, and the next step begins as after any other.
    """
    fault_point("train.step")
    try:
        check_finite(losses, step=step)
    except NonFinite:
        _drop_all(engines)
        raise
    broken = [name for name, engine in engines.items() if not gradients_are_finite(engine)]
    if broken:
        can_shrink = all(map(_can_shrink, engines.values()))
        _drop_all(engines)
        if can_shrink:
            return False
        # gradients have been summed over the ranks: whose they are can no longer be told
        raise NonFinite(f"gradient of the {broken[0]}", step=step, culprit=None, positions=None)
    for engine in engines.values():
        engine.step()
        fault_point("train.stepped")
    return True


def gradients_are_finite(engine: TrainingEngine) -> bool:
    """Whether the accumulated gradients, summed over the ranks, are; all ranks call it together and agree."""
    # Private in DeepSpeed; the dependency is pinned to the release that this was tested on.
    stage = engine.zero_optimization_stage()
    if stage == 0:
        gradients = [p.grad for p in engine.module.parameters() if p.grad is not None]
        return bool(torch.stack([torch.isfinite(g).all() for g in gradients]).all()) if gradients else True
    if stage == ZERO_PARTITIONED:
        norms = engine.optimizer._get_norm_groups()
    else:
        norms = [engine.optimizer.scaled_global_norm()]
    # a norm that is not finite comes as -1
    return all(bool(torch.isfinite(norm)) and bool(norm >= 0) for norm in map(torch.as_tensor, norms))


def _can_shrink(engine: TrainingEngine) -> bool:
    """Whether an overflow makes the loss scale of fp16 smaller: not where it was fixed or is the smallest already."""
    if not engine.fp16_enabled():
        return False
    optimizer = engine.optimizer
    # at stage 0 it is kept elsewhere
    dynamic = getattr(optimizer, "dynamic_loss_scale", None)
    if dynamic is None:
        dynamic = optimizer.loss_scale_config.dynamic_loss_scale
    return dynamic and float(optimizer.loss_scale) > MIN_LOSS_SCALE


def _drop_all(engines: Mapping[str, TrainingEngine]) -> None:
    for engine in engines.values():
        _drop_step(engine)


def _drop_step(engine: TrainingEngine) -> None:
    """Have DeepSpeed do what it does when gradients overflow: count the step, change nothing, drop the gradients."""
    optimizer = engine.optimizer
    stage = engine.zero_optimization_stage()
    if stage == 0 and engine.fp16_enabled():
        for parameter in engine.module.parameters():
            if parameter.grad is not None:
                parameter.grad.fill_(torch.nan)
        forced: dict[str, Any] = {}
    elif stage == 0:
        for parameter in engine.module.parameters():
            if parameter.grad is not None:
                parameter.grad.zero_()
        forced = {"step": lambda: None, "overflow": True}
    elif stage == ZERO_PARTITIONED:
        forced = {"_get_norm_groups": lambda: [torch.tensor(torch.nan)]}
    else:
        forced = {"check_grad_overflow": True, "check_overflow": lambda **_: setattr(optimizer, "overflow", True)}
    # at the smallest loss scale DeepSpeed would end the run in its own way
    lenient = {"raise_error_at_min_scale": False}
    with _attributes(optimizer, forced), _attributes(getattr(optimizer, "loss_scaler", None), lenient):
        engine.step()


@contextmanager
def _attributes(target: Any | None, values: Mapping[str, Any]) -> Iterator[None]:
    """Within the body an object, if there is one, has other attributes of its own."""
    if target is None:
        yield
        return
    before = {name: vars(target)[name] for name in values if name in vars(target)}
    for name, value in values.items():
        setattr(target, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(target, name, before[name])
            else:
                delattr(target, name)

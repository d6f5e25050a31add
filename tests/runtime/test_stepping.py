"""A step with numbers that are not finite leaves no trace, whatever the ZeRO stage."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from dschat.config.training import ScheduleConfig
from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
from dschat.runtime.distributed import whole_state_dict
from dschat.runtime.guards import NonFinite
from dschat.runtime.stepping import gradients_are_finite, step_all
from toys.models import make_causal_lm

PLACEMENTS = [
    *(Placement(stage, "fp32", offload=False) for stage in range(4)),
    *(Placement(stage, "bf16", offload=False) for stage in (1, 2, 3)),
    *(Placement(stage, "fp32", offload=True) for stage in (2, 3)),
]


def make_engine(placement: Placement) -> Any:
    dtype = torch.bfloat16 if placement.dtype == "bf16" else torch.float32
    schedule = ScheduleConfig(gradient_accumulation_steps=2, lr_scheduler_type="cosine")
    optimization = Optimization(1e-2, 0.1, micro_batch_size=2, schedule=schedule, total_updates=9)
    model = make_causal_lm("llama", vocab_size=40).to(dtype)
    return training_engine(model, training_settings(placement, optimization), optimization)


def train(engine: Any, step: int, *, poison: float = 1.0, gradient_alone: bool = False) -> bool:
    """One optimizer step of two micro-batches; the second one's loss is multiplied by `poison`."""
    generator = torch.Generator().manual_seed(step)
    losses = []
    for number in (1, 2):
        ids = torch.randint(40, (2, 7), generator=generator)
        loss = engine(input_ids=ids, labels=ids).loss
        wrong = loss * poison if number == 2 else loss
        engine.backward(wrong)
        losses.append(loss.detach() if gradient_alone else wrong.detach())
        if number == 1:
            engine.step()
    return step_all({"model": engine}, {"loss": torch.stack(losses)}, step=step)


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
@pytest.mark.parametrize("gradient_alone", [False, True])
def test_a_broken_step_leaves_no_trace(placement: Placement, gradient_alone: bool, process_group: torch.device) -> None:
    broken, clean = make_engine(placement), make_engine(placement)
    for engine in (broken, clean):
        assert train(engine, 1)
    what = "gradient of the model became .* on every rank" if gradient_alone else "the loss became .* on rank 0"
    with pytest.raises(NonFinite, match=what):
        train(broken, 2, poison=math.nan, gradient_alone=gradient_alone)
    for engine in (broken, clean):
        assert train(engine, 3)
    assert broken.get_lr() == clean.get_lr()
    ours, theirs = whole_state_dict(broken.module), whole_state_dict(clean.module)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert broken.skipped_steps == 1


@pytest.mark.parametrize("placement", PLACEMENTS, ids=str)
def test_one_broken_model_keeps_the_other_from_stepping(placement: Placement, process_group: torch.device) -> None:
    actor, critic = make_engine(Placement(2, "fp32", offload=False)), make_engine(placement)
    before = whole_state_dict(critic.module)
    ids = torch.arange(14).reshape(2, 7)
    for _ in range(2):
        for engine, poison in ((actor, math.inf), (critic, 1.0)):
            engine.backward(engine(input_ids=ids, labels=ids).loss * poison)
        if actor.is_gradient_accumulation_boundary():
            break
        actor.step()
        critic.step()
    assert not gradients_are_finite(actor)
    assert gradients_are_finite(critic)
    with pytest.raises(NonFinite, match="gradient of the actor"):
        step_all({"actor": actor, "critic": critic}, {"loss": torch.zeros(2)}, step=1)
    after = whole_state_dict(critic.module)
    assert all(torch.equal(before[name], after[name]) for name in before)

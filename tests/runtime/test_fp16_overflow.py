"""Gradients that overflow in fp16: the step is left out for all models, counted, and not for ever."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from deepspeed.accelerator import get_accelerator

from dschat.config.training import ScheduleConfig
from dschat.errors import TrainingFault
from dschat.offline.loop import BatchResult
from dschat.offline.sft import SFTObjective
from dschat.rlhf.ppo_updates import PPOUpdates
from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
from dschat.runtime.distributed import whole_state_dict
from dschat.runtime.guards import NonFinite
from dschat.runtime.metrics import Sums
from dschat.runtime.stepping import step_all
from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments
from toys.models import make_causal_lm

TOO_MUCH = 1e6
"""Times a loss, its gradients do not fit fp16 at any usual loss scale."""
pytestmark = pytest.mark.usefixtures("process_group")


@pytest.fixture(autouse=True)
def fp16_on_this_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """CPUs compute in fp16, though DeepSpeed does not offer it everywhere."""
    monkeypatch.setattr(type(get_accelerator()), "is_fp16_supported", lambda _: True)


def make_engine(stage: int, *, fp16: dict[str, Any] | None = None) -> Any:
    optimization = Optimization(1e-3, 0.1, micro_batch_size=2, schedule=ScheduleConfig(), total_updates=99)
    model = make_causal_lm("llama", vocab_size=40).half()
    settings = training_settings(Placement(stage, "fp16", offload=False), optimization)
    settings["fp16"] |= fp16 or {}
    return training_engine(model, settings, optimization)


def train(engines: dict[str, Any], step: int, *, factors: dict[str, float]) -> bool:
    """One step of all engines; a loss is multiplied by its factor."""
    ids = torch.randint(40, (2, 7), generator=torch.Generator().manual_seed(step))
    for name, engine in engines.items():
        engine.backward(engine(input_ids=ids, labels=ids).loss * factors.get(name, 1.0))
    return step_all(engines, {"loss": torch.zeros(1)}, step=step)


def weights(engines: dict[str, Any]) -> list[torch.Tensor]:
    return [w for engine in engines.values() for w in whole_state_dict(engine.module).values()]


@pytest.mark.parametrize("stage", range(4))
def test_an_overflow_of_one_model_leaves_the_step_out_for_both(stage: int) -> None:
    engines = {"actor": make_engine(stage), "critic": make_engine(stage)}
    while not train(engines, 1, factors={}):  # the first loss scale may be too large
        pass
    before, rates, scale = weights(engines), engines["actor"].get_lr(), engines["critic"].optimizer.loss_scale
    skipped = engines["actor"].skipped_steps
    for step in (2, 3):
        assert not train(engines, step, factors={"critic": TOO_MUCH})
    assert all(torch.equal(w, v) for w, v in zip(weights(engines), before, strict=True))
    assert engines["actor"].get_lr() == rates
    assert engines["actor"].skipped_steps == engines["critic"].skipped_steps == skipped + 2
    assert engines["critic"].optimizer.loss_scale < scale
    assert train(engines, 4, factors={})
    assert not all(torch.equal(w, v) for w, v in zip(weights(engines), before, strict=True))


@pytest.mark.parametrize("stage", range(4))
def test_at_the_smallest_loss_scale_an_overflow_is_a_fault(stage: int) -> None:
    engines = {"actor": make_engine(stage)}
    with pytest.raises(NonFinite, match=r"gradient of the actor became NaN or infinite .*--dtype bf16 instead of fp16"):
        for step in range(1, 40):
            assert not train(engines, step, factors={"actor": torch.inf})
    assert engines["actor"].optimizer.loss_scale <= 1
    assert 16 <= step <= 20  # halved from 65,536


@pytest.mark.parametrize("stage", range(4))
def test_an_overflow_at_a_fixed_loss_scale_is_a_fault(stage: int) -> None:
    engines = {"actor": make_engine(stage, fp16={"loss_scale": 4})}
    assert train(engines, 1, factors={})
    before = weights(engines)
    for step in (2, 3):
        with pytest.raises(NonFinite, match="gradient of the actor"):
            train(engines, step, factors={"actor": TOO_MUCH})
    assert all(torch.equal(w, v) for w, v in zip(weights(engines), before, strict=True))
    assert train(engines, 4, factors={})


def test_a_ppo_run_counts_what_fp16_leaves_out_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = PPOUpdates._critic_loss

    def critic_loss(updates: PPOUpdates, batch: Any) -> tuple[torch.Tensor, Sums]:
        nonlocal calls
        calls += 1
        loss, sums = original(updates, batch)
        return loss * (TOO_MUCH if calls in (2, 3) else 1.0), sums

    calls = 0
    monkeypatch.setattr(PPOUpdates, "_critic_loss", critic_loss)
    paths = make_folders(tmp_path)
    extra = "--dtype fp16 --max_steps 6 --max_skipped_steps 1 --save_steps 2"
    lines = run_job(Job("ppo", ppo_arguments(paths, tmp_path / "out", extra)))
    # more in a row than --max_skipped_steps, which is about steps that nothing mends
    assert [line["skipped_steps"] for line in lines] == [0, 1, 2, 2, 2, 2]
    assert len({line["actor_learning_rate"] for line in lines[:3]}) == 1
    assert sorted(folder.name for folder in (tmp_path / "out/state").glob("step-*")) == ["step-4", "step-6"]


def test_a_run_that_only_overflows_ends_with_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = SFTObjective.__call__

    def huge(self: SFTObjective, engine: Any, batch: Any) -> BatchResult:
        result = original(self, engine, batch)
        return BatchResult(result.loss_sum * (1e12 if engine.module.training else 1), result.metrics)

    monkeypatch.setattr(SFTObjective, "__call__", huge)
    paths = make_folders(tmp_path)
    extra = "--dtype fp16 --max_steps 60 --num_train_epochs 20 --max_skipped_steps 2"
    with pytest.raises(TrainingFault) as caught:
        run_job(Job("sft", supervised_arguments(paths, "sft", tmp_path / "out", extra)))
    assert "gradient of the model became NaN or infinite at step " in str(caught.value)
    assert "--dtype bf16 instead of fp16" in str(caught.value)

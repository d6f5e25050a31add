"""The type of a DeepSpeed engine says what the library has."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dschat.config.training import ScheduleConfig
from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
from dschat.runtime.training_engine import TrainingEngine

MEMBERS = sorted(name for name in vars(TrainingEngine) if not name.startswith("_") or name == "__call__")


@pytest.mark.parametrize("stage", [0, 1, 3])
def test_the_engine_of_every_stage_has_what_the_type_promises(stage: int, process_group: torch.device) -> None:
    optimization = Optimization(1e-3, 0.0, 2, ScheduleConfig(lr_scheduler_type="constant"), 4)
    settings = training_settings(Placement(stage, "fp32", offload=False), optimization)
    engine = training_engine(nn.Linear(3, 1), settings, optimization)
    assert len(MEMBERS) > 10
    assert [name for name in MEMBERS if not hasattr(engine, name)] == []
    assert hasattr(engine._config, "load_universal_checkpoint")
    assert engine.zero_optimization_stage() == stage
    assert not engine.fp16_enabled()
    assert set(engine.get_lr()) == {1e-3}
    assert not engine.eval() and not engine.module.training
    engine.train()
    assert engine.module.training

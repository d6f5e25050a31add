"""The one way onto DeepSpeed: what becomes of a role."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dschat.config.lora import AdapterSettings
from dschat.config.runtime import RuntimeConfig
from dschat.config.training import ScheduleConfig
from dschat.engines import Role, check_deepspeed_file, estimated, frozen, trained
from dschat.errors import UserError
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import CheckedModel, check_model
from dschat.models.lora import WithoutAdapter, inner_module
from dschat.models.reward_model import TokenScorer, hugging_face_model, load_token_scorer
from dschat.runtime.deepspeed_config import Optimization, Placement
from dschat.runtime.memory import MemoryMeter
from dschat.runtime.training_engine import TrainingEngine
from toys.jobs import make_folders

RUNTIME = RuntimeConfig(dtype="fp32", seed=1)
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
ADAPTER = AdapterSettings(
    rank=4, alpha=8.0, module_names=(), learning_rate=1e-2, alone=True, quantized=False, role=""
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, CheckedModel]:
    paths = make_folders(tmp_path_factory.mktemp("engines"), family="gpt2")
    return {name: check_model(name, paths[name]) for name in ("sft", "reward")}


@pytest.fixture
def memory(process_group: torch.device) -> MemoryMeter:
    return MemoryMeter(process_group)


def actor(checkpoint: CheckedModel, *, stage: int = 0, adapter: AdapterSettings | None = None) -> Role:
    schedule = ScheduleConfig(lr_scheduler_type="constant")
    optimization = Optimization(1e-2, 0.0, 2, schedule, 4, lora_learning_rate=adapter and adapter.learning_rate)
    return Role(
        "actor", load_causal_lm, checkpoint, Placement(stage, "fp32", offload=False), optimization, dropout=0.0,
        adapter=adapter,
    )  # fmt: skip


def copy_of(role: Role) -> Role:
    return replace(role, name="reference", optimization=None)


@torch.no_grad()
def logits(model: object) -> Tensor:
    return model(input_ids=IDS, use_cache=False).logits  # type: ignore[operator]


def train_once(engine: TrainingEngine) -> None:
    engine.train()
    engine.backward(engine(input_ids=IDS, labels=IDS, use_cache=False).loss)
    engine.step()
    engine.eval()


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_training_changes_the_engine_and_not_its_frozen_copy(
    stage: int, checkpoints: dict[str, CheckedModel], memory: MemoryMeter
) -> None:
    role = actor(checkpoints["sft"], stage=stage)
    engine = trained(role, RUNTIME, memory)
    placement = Placement(3 if stage == 3 else 0, "fp32", offload=False)
    reference = frozen(replace(copy_of(role), placement=placement), RUNTIME, memory, twin=engine)
    engine.eval()
    before = logits(engine)
    assert torch.equal(logits(reference), before)
    train_once(engine)
    assert not torch.equal(logits(engine), before)
    assert torch.equal(logits(reference), before)
    inside = inner_module(reference)
    assert not inside.training
    assert not any(weight.requires_grad for weight in inside.parameters())
    assert set(memory.peaks) == {"actor", "reference"}


def test_where_the_adapter_is_trained_alone_the_frozen_copy_is_inside_the_trained_model(
    checkpoints: dict[str, CheckedModel], memory: MemoryMeter
) -> None:
    role = actor(checkpoints["sft"], adapter=ADAPTER)
    engine = trained(role, RUNTIME, memory)
    reference = frozen(copy_of(role), RUNTIME, memory, twin=engine)
    assert isinstance(reference, WithoutAdapter)
    assert reference.module is engine.module
    engine.eval()
    before = logits(reference)
    train_once(engine)
    assert torch.equal(logits(reference), before)
    assert not torch.equal(logits(engine), before)
    assert "no memory of its own" in estimated(copy_of(role))
    assert not estimated(role).endswith("without its adapter")


def test_beside_other_trained_weights_the_frozen_copy_is_loaded_without_an_adapter(
    checkpoints: dict[str, CheckedModel], memory: MemoryMeter
) -> None:
    role = actor(checkpoints["sft"], adapter=replace(ADAPTER, alone=False))
    reference = frozen(copy_of(role), RUNTIME, memory, twin=trained(role, RUNTIME, memory))
    assert not isinstance(reference, WithoutAdapter)
    assert not any("lora_" in name for name, _ in inner_module(reference).named_parameters())


def test_a_scorer_is_adapted_and_checkpointed_inside(checkpoints: dict[str, CheckedModel], memory: MemoryMeter) -> None:
    role = replace(
        actor(checkpoints["reward"], adapter=ADAPTER),
        name="critic", load=partial(load_token_scorer, fresh_head=False), gradient_checkpointing=True,
    )  # fmt: skip
    engine = trained(role, RUNTIME, memory)
    assert isinstance(engine.module, TokenScorer)
    inner = hugging_face_model(engine.module)
    assert inner is engine.module.model
    assert inner.is_gradient_checkpointing
    assert any("lora_" in name for name, weight in inner.named_parameters() if weight.requires_grad)


def test_the_weights_of_a_role_that_are_estimated_are_those_that_it_gets(
    checkpoints: dict[str, CheckedModel], memory: MemoryMeter, tmp_path: Path
) -> None:
    role = actor(checkpoints["sft"])
    count = sum(weight.numel() for weight in trained(role, RUNTIME, memory).module.parameters())
    assert estimated(role).startswith(f"actor: {count / 1e6:,.1f} M parameters")
    assert "optimizer 0.00" in estimated(copy_of(role))


def test_a_file_of_deepspeed_settings_reaches_the_trained_engine(
    checkpoints: dict[str, CheckedModel], memory: MemoryMeter, tmp_path: Path
) -> None:
    file = tmp_path / "deepspeed.json"
    file.write_text('{"gradient_clipping": 0.5, "optimizer": {"params": {"lr": "auto", "eps": 1e-6}}}')
    runtime = RuntimeConfig(dtype="fp32", deepspeed_config=str(file))
    role = actor(checkpoints["sft"])
    check_deepspeed_file(runtime, lambda: [role, copy_of(role)])
    engine = trained(role, runtime, memory)
    assert engine.gradient_clipping() == 0.5  # type: ignore[attr-defined]
    assert [(group["eps"], group["lr"]) for group in engine.optimizer.param_groups] == [(1e-6, 1e-2)] * 2
    file.write_text('{"optimizer": {"params": {"lr": 0.5}}}')
    with pytest.raises(UserError, match=r"optimizer\.params\.lr is 0\.5, but --learning_rate makes it 0\.01"):
        check_deepspeed_file(runtime, lambda: [role])

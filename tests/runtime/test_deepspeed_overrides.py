"""--deepspeed_config: what no flag sets goes through to the engine, all else is taken from the flags or refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.config.runtime import RuntimeConfig
from dschat.config.training import ScheduleConfig
from dschat.errors import UserError
from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
from dschat.runtime.deepspeed_entries import flattened, merged
from dschat.runtime.deepspeed_overrides import (
    Trained,
    TrainingFlags,
    blaming,
    check_overrides,
    overrides_of,
)

OPTIMIZATION = Optimization(
    learning_rate=1e-3, weight_decay=0.1, micro_batch_size=4, schedule=ScheduleConfig(gradient_accumulation_steps=3),
    total_updates=10, passes=2,
)  # fmt: skip

pytestmark = pytest.mark.usefixtures("process_group")


def trained(stage: int = 2, dtype: str = "fp32", *, offload: bool = False, role: str = "") -> Trained:
    flags = TrainingFlags(
        learning_rate=f"--{role}learning_rate", weight_decay=f"--{role}weight_decay",
        micro_batch_size="--per_device_train_batch_size", zero_stage=f"--{role}zero_stage",
        gradient_checkpointing=f"--{role}gradient_checkpointing",
    )  # fmt: skip
    return Trained(Placement(stage, dtype, offload), OPTIMIZATION, flags)


def runtime(folder: Path, entries: Any, *, dtype: Any = "fp32") -> RuntimeConfig:
    file = folder / "over.json"
    file.write_text(json.dumps(entries))
    return RuntimeConfig(dtype=dtype, deepspeed_config=str(file))


def nested(name: str, value: Any) -> dict[str, Any]:
    """`{"a": {"b": value}}` for `a.b`."""
    for part in reversed(name.split(".")):
        value = {part: value}
    return value


def refusal(folder: Path, entries: Any, model: Trained, **changes: Any) -> str:
    with pytest.raises(UserError) as caught:
        check_overrides(runtime(folder, entries, **changes), lambda: {"model": model})
    message = str(caught.value)
    assert "\n" not in message
    start = f"--deepspeed_config {folder}/over.json: "
    assert message.startswith(start)
    return message.removeprefix(start)


def engine_of(model: Trained, overrides: dict[str, Any]) -> Any:
    settings = merged(training_settings(model.placement, model.optimization), overrides)
    return training_engine(torch.nn.Linear(4, 4), settings, model.optimization)


def test_without_the_flag_nothing_is_asked_and_nothing_changes() -> None:
    check_overrides(RuntimeConfig(), lambda: pytest.fail("no model need be described"))
    model = trained()
    assert overrides_of(RuntimeConfig(), model) == {}


ALLOWED = {
    "gradient_clipping": 0.5,
    "steps_per_print": 10,
    "wall_clock_breakdown": True,
    "prescale_gradients": True,
    "gradient_predivide_factor": 2,
    "communication_data_type": "fp32",
    "optimizer.params.betas": [0.9, 0.999],
    "optimizer.params.eps": 1e-6,
    "optimizer.params.amsgrad": True,
    "optimizer.legacy_fusion": True,
    "zero_optimization.reduce_bucket_size": 7,
    "zero_optimization.overlap_comm": False,
    "zero_optimization.contiguous_gradients": False,
    "checkpoint.tag_validation": "Ignore",
    "data_types.grad_accum_dtype": "fp32",
    "flops_profiler.enabled": True,
    "comms_logger.enabled": True,
    "csv_monitor.job_name": "mine",
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_no_flag_sets_replaces_one_entry_of_the_settings(name: str, tmp_path: Path) -> None:
    model = trained()
    config = runtime(tmp_path, nested(name, ALLOWED[name]))
    check_overrides(config, lambda: {"model": model})
    overrides = overrides_of(config, model)
    assert overrides == nested(name, ALLOWED[name])
    assert dict(flattened(overrides)) == {name: ALLOWED[name]}


SAME = {
    "train_micro_batch_size_per_gpu": 4,
    "gradient_accumulation_steps": 3,
    "train_batch_size": 12,
    "optimizer.type": "AdamW",
    "optimizer.params.lr": 0.001,
    "optimizer.params.weight_decay": 0.1,
    "optimizer.params.adam_w_mode": True,
    "fp16.enabled": False,
    "bf16.enabled": False,
    "zero_optimization.stage": 2,
    "zero_optimization.offload_optimizer.device": "none",
    "zero_optimization.offload_param.device": "none",
}


@pytest.mark.parametrize("name", SAME)
def test_what_a_flag_sets_may_say_the_same_or_auto_and_nothing_else(name: str, tmp_path: Path) -> None:
    for value in (SAME[name], "auto"):
        config = runtime(tmp_path, nested(name, value))
        check_overrides(config, lambda: {"model": trained()})
        # the flags' own entries stand, of which the accumulation counts both losses of PPO with text
        assert overrides_of(config, trained()) == {}
    for other in (7, "7", SAME[name] is False, None, 0.5, [4]):
        assert refusal(tmp_path, nested(name, other), trained()).startswith(f"{name} is {other}, but ")


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("train_micro_batch_size_per_gpu", 8, "but --per_device_train_batch_size makes it 4; change the flag"),
        ("gradient_accumulation_steps", 6, "but --gradient_accumulation_steps makes it 3; change the flag"),
        ("train_batch_size", 16, "but --per_device_train_batch_size 4 times --gradient_accumulation_steps 3 on 1 "
                                 "device(s) makes it 12; change those flags"),
        ("optimizer.params.lr", 0.1, "but --learning_rate makes it 0.001"),
        ("optimizer.params.weight_decay", 0.0, "but --weight_decay makes it 0.1"),
        ("optimizer.type", "Lion", "but the optimizer of every step is AdamW; leave the entry out"),
        ("fp16.enabled", True, "but --dtype makes it False"),
        ("zero_optimization.stage", 3, "but --zero_stage makes it 2"),
        ("zero_optimization.offload_optimizer.device", "cpu",
         "but nothing is offloaded without --offload and --zero_stage 1 or 2 or 3; leave the entry out, or pass those"),
        ("zero_optimization.offload_param.device", "nvme", "nothing is offloaded without --offload and --zero_stage 3"),
    ],
)  # fmt: skip
def test_a_contradicted_flag_is_named_with_its_value(name: str, value: Any, sentence: str, tmp_path: Path) -> None:
    assert sentence in refusal(tmp_path, nested(name, value), trained())


def test_offloading_with_the_flag_may_be_refined_but_not_moved(tmp_path: Path) -> None:
    refined = {"zero_optimization": {"offload_optimizer": {"device": "cpu", "pin_memory": False}}}
    assert overrides_of(runtime(tmp_path, refined), trained(offload=True)) == {
        "zero_optimization": {"offload_optimizer": {"pin_memory": False}}
    }
    moved = nested("zero_optimization.offload_optimizer.device", "nvme")
    assert "but --offload makes it cpu" in refusal(tmp_path, moved, trained(offload=True))


def test_fallbacks_of_the_run_count_as_what_the_flags_say(tmp_path: Path) -> None:
    # --dtype fp16 on a device without it, and --zero_stage 0 in bf16
    for enabled in (True, False):
        said = {"fp16": {"enabled": enabled}, "bf16": {"enabled": enabled}, "zero_optimization": {"stage": 0}}
        config = runtime(tmp_path, said, dtype="fp16")
        check_overrides(config, lambda: {"model": trained(1, "bf16")})
        assert overrides_of(config, trained(1, "bf16")) == {}


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("gradient_cliping", "DeepSpeed knows no entry gradient_cliping; did you mean gradient_clipping?"),
        ("learning_rate_of_mine", "DeepSpeed knows no entry learning_rate_of_mine; leave it out"),
        ("zero_optimization.reduce_bucket", "entry zero_optimization.reduce_bucket; did you mean zero_optimization."),
        ("zero_optimization.stage3_max_live_parameter", "did you mean zero_optimization.stage3_max_live_parameters?"),
        ("zero_optimization.offload_optimizer.pin_memry", "mean zero_optimization.offload_optimizer.pin_memory?"),
        ("fp16.loss_scale_windw", "did you mean fp16.loss_scale_window?"),
        ("bf16.grad_overflow", "did you mean bf16.check_grad_overflow?"),
        ("csv_monitor.jobname", "did you mean csv_monitor.job_name?"),
        ("comms_logger.verbos", "did you mean comms_logger.verbose?"),
        ("optimizer.parms", "did you mean optimizer.params?"),
        ("optimizer.params.epsilon", "no entry optimizer.params.epsilon; did you mean optimizer.params.eps?"),
        ("flops_profiler.profile_steps", "did you mean flops_profiler.profile_step?"),
        ("data_types.grad_acum_dtype", "did you mean data_types.grad_accum_dtype?"),
        ("checkpoint.tag_validaton", "did you mean checkpoint.tag_validation?"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [1, "auto"])
def test_entries_that_deepspeed_does_not_know_are_named_with_the_nearest(
    name: str, sentence: str, value: Any, tmp_path: Path
) -> None:
    assert sentence in refusal(tmp_path, nested(name, value), trained())


@pytest.mark.parametrize(
    ("entries", "sentence"),
    [
        ({"scheduler": {"type": "WarmupLR", "params": {"warmup_max_lr": 0.5}}},
         "scheduler has no place here: the learning rate follows --lr_scheduler_type, --num_warmup_steps and"),
        ({"activation_checkpointing": {"partition_activations": True}}, "recomputed with --gradient_checkpointing"),
        ({"torch_autocast": {"enabled": True}}, "precision is --dtype's"),
        ({"data_types": {"param_dtype": "bf16"}}, "data_types.param_dtype has no place here: precision is --dtype's"),
        ({"bfloat16": {"enabled": True}}, "its name is bf16"),
        ({"optimizer": {"params": {"max_grad_norm": 1.0}}}, "its name is gradient_clipping"),
        ({"zero_optimization": {"cpu_offload": True}}, "it is what --offload does"),
        ({"zero_optimization": {"compute_grad_norm": False}}, "need the norm of the gradient"),
        ({"checkpoint": {"writer": {"decoupled": True}}}, "checkpoint.writer has no place here: its files arrive"),
        ({"datastates_ckpt": {"host_cache_size": 1}}, "datastates_ckpt has no place here: its files arrive after"),
        ({"checkpoint": {"load_universal": True}}, "states are written and read by --save_steps and --resume"),
        ({"data_efficiency": {"enabled": True}}, "by --seed and --data_split"),
        ({"tensor_parallel": {"autotp_size": 2}}, "ranks share the data"),
        ({"pipeline": {"stages": 2}}, "ranks share the data"),
        ({"sequence_parallel_size": 2}, "ranks share the data"),
        ({"hybrid_engine": {"enabled": True}}, "answers are sampled by the models that are trained"),
        ({"compile": {"deepcompile": True}}, "models are not compiled"),
        ({"elasticity": {"enabled": True}}, "Elastic training has been removed"),
        ({"curriculum_learning": {"enabled": True}}, "Legacy top-level 'curriculum_learning' has been removed"),
        ({"zero_optimization": {"stage3_prefetch_bucket_size": 5}}, "has no effect without --zero_stage 3; leave"),
        ({"zero_optimization": {"prefetch_bucket_size": 5}}, "has no effect without --zero_stage 3"),
        ({"zero_optimization": {"offload_optimizer": {"pin_memory": True}}},
         "offload_optimizer.pin_memory has no effect without --offload and --zero_stage 1 or 2 or 3"),
        ({"zero_optimization": True}, "zero_optimization is True, but must hold an object, such as {'stage': 2}"),
        ({"optimizer": "AdamW"}, "optimizer is 'AdamW', but must hold an object"),
    ],
)  # fmt: skip
def test_what_would_do_nothing_or_harm_is_refused_with_the_reason(
    entries: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    assert sentence in refusal(tmp_path, entries, trained())
    # among others, too
    assert sentence in refusal(tmp_path, {"gradient_clipping": 0.5, **entries}, trained())


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("gradient_clipping", "x", "gradient_clipping is 'x', but must be a number"),
        ("gradient_clipping", None, "gradient_clipping is None, but must be a number"),
        ("gradient_clipping", True, "must be a number"),
        ("gradient_clipping", -1, "must be at least 0"),
        ("steps_per_print", 0, "must be above 0"),
        ("steps_per_print", 1.5, "must be a whole number"),
        ("gradient_predivide_factor", 0, "must be above 0"),
        ("wall_clock_breakdown", "yes", "must be true or false"),
        ("communication_data_type", "fp8", "Invalid communication_data_type"),
        ("communication_data_type", 8, "DeepSpeed refuses communication_data_type"),
        ("gradient_allreduce_op", "most", "Invalid gradient_allreduce_op"),
        (
            "zero_optimization.reduce_bucket_size",
            "big",
            "zero_optimization.reduce_bucket_size is 'big': Input should",
        ),
        (
            "zero_optimization.reduce_bucket_size",
            0,
            "zero_optimization.reduce_bucket_size is 0: Input should",
        ),
        ("zero_optimization.overlap_comm", "maybe", "zero_optimization.overlap_comm is 'maybe'"),
        ("fp16.loss_scale", -1, "fp16.loss_scale is -1: fp16.loss_scale must be >= 0"),
        ("csv_monitor.enabled", "perhaps", "csv_monitor.enabled is 'perhaps'"),
        ("csv_monitor", 5, "csv_monitor is 5: Input should be a valid dictionary"),
        ("comms_logger", True, "DeepSpeed refuses comms_logger"),
        ("flops_profiler", True, "DeepSpeed refuses flops_profiler"),
        ("checkpoint.tag_validation", "Perhaps", "invalid tag_validation"),
        ("optimizer.params.betas", [0.9], "optimizer.params cannot be"),
        ("optimizer.params.betas", [0.9, 1.5], "Invalid beta parameter at index 1"),
        ("optimizer.params.betas", "0.9", "optimizer.params cannot be"),
        ("optimizer.params.eps", -1e-8, "Invalid epsilon value"),
        ("optimizer.params.torch_adam", "yes", "optimizer.params.torch_adam is 'yes', but must be true or false"),
    ],
)
def test_values_that_deepspeed_cannot_take_are_named_before_any_engine_is_built(
    name: str, value: Any, sentence: str, tmp_path: Path
) -> None:
    assert sentence in refusal(tmp_path, nested(name, value), trained())
    others = {"gradient_clipping": 0.5} if name != "gradient_clipping" else {"prescale_gradients": True}
    assert sentence in refusal(tmp_path, {**others, **nested(name, value)}, trained())


def test_gradient_clipping_may_be_switched_off(tmp_path: Path) -> None:
    assert overrides_of(runtime(tmp_path, {"gradient_clipping": 0}), trained()) == {"gradient_clipping": 0}


def test_a_whole_file_of_auto_changes_nothing(tmp_path: Path) -> None:
    said = {
        "train_batch_size": "auto", "train_micro_batch_size_per_gpu": "auto", "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto", "fp16": {"enabled": "auto", "loss_scale_window": "auto"},
        "bf16": {"enabled": "auto"}, "scheduler": {"type": "auto", "params": {"warmup_min_lr": "auto"}},
        "optimizer": {"type": "AdamW", "params": dict.fromkeys(("lr", "betas", "eps", "weight_decay"), "auto")},
        "zero_optimization": {"stage": 2, "reduce_bucket_size": "auto", "stage3_max_live_parameters": "auto",
                              "offload_optimizer": {"device": "auto"}},
    }  # fmt: skip
    config = runtime(tmp_path, said)
    check_overrides(config, lambda: {"model": trained()})
    assert overrides_of(config, trained()) == {}


def test_actor_and_critic_get_what_applies_to_each_and_the_log_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    models = {"actor": trained(2, role="actor_"), "critic": trained(3, role="critic_")}
    said = {"gradient_clipping": 0.5, "zero_optimization": {"stage3_max_live_parameters": 9}, "fp16": {"hysteresis": 3}}
    config = runtime(tmp_path, said)
    check_overrides(config, lambda: models)
    assert overrides_of(config, models["actor"]) == {"gradient_clipping": 0.5}
    partitioned = {"gradient_clipping": 0.5, "zero_optimization": {"stage3_max_live_parameters": 9}}
    assert overrides_of(config, models["critic"]) == partitioned
    assert "sets for the actor: gradient_clipping = 0.5\n" in caplog.text
    assert "sets for the critic: gradient_clipping = 0.5, zero_optimization.stage3_max_live_para" in caplog.text
    assert "fp16.hysteresis has no effect without --dtype fp16" in caplog.text
    with pytest.raises(UserError, match="stage is 2, but --critic_zero_stage makes it 3"):
        check_overrides(runtime(tmp_path, {"zero_optimization": {"stage": 2}}), lambda: models)
    models["critic"] = trained(1, role="critic_")
    with pytest.raises(UserError, match="no effect without --actor_zero_stage 3 or --critic_zero_stage 3; leave"):
        check_overrides(runtime(tmp_path, said), lambda: models)


def test_an_engine_runs_with_what_the_file_says(tmp_path: Path) -> None:
    said = {
        "gradient_clipping": 0.5, "zero_optimization": {"reduce_bucket_size": 77_000, "overlap_comm": False},
        "optimizer": {"params": {"betas": [0.8, 0.99], "eps": 1e-5}}, "train_batch_size": 12,
    }  # fmt: skip
    model = trained()
    overrides = overrides_of(runtime(tmp_path, said), model)
    engine = engine_of(model, overrides)
    assert engine.gradient_clipping() == 0.5
    assert engine.zero_reduce_bucket_size() == 77_000
    assert engine.train_micro_batch_size_per_gpu() == 4
    assert engine.gradient_accumulation_steps() == 6
    group = engine.optimizer.param_groups[0]
    assert (group["betas"], group["eps"], group["lr"], group["weight_decay"]) == ((0.8, 0.99), 1e-5, 1e-3, 0.1)


def test_what_breaks_an_engine_only_when_it_is_built_is_blamed_on_the_file(tmp_path: Path) -> None:
    model = trained()
    config = runtime(tmp_path, {"data_types": {"grad_accum_dtype": "fp7"}, "gradient_clipping": 0.5})
    overrides = overrides_of(config, model)
    with pytest.raises(UserError) as caught, blaming(config, overrides):
        engine_of(model, overrides)
    names = "data_types.grad_accum_dtype, gradient_clipping"
    assert str(caught.value).startswith(
        f"--deepspeed_config {tmp_path}/over.json: DeepSpeed does not start with {names} ("
    )
    with pytest.raises(TypeError, match="of the run's own"), blaming(RuntimeConfig(), {}):
        raise TypeError("of the run's own")
    with pytest.raises(UserError, match=r"^said already$"), blaming(config, overrides):
        raise UserError("said already")

"""What `--deepspeed_config` may say: DeepSpeed settings that no flag sets, checked before any weights are read.

An entry that a flag sets must have the flag's value, or be "auto", which stands for it; another value is refused with
the flag's name, as the run's own arithmetic, schedule and log would not know of it. The same file goes to every model
that a step trains, in step 3 to actor and critic; frozen models have none of these settings but ZeRO's own.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from dschat.config.deepspeed_file import read_deepspeed_file
from dschat.config.runtime import RuntimeConfig
from dschat.errors import UserError
from dschat.runtime.deepspeed_config import Optimization, Placement, training_settings
from dschat.runtime.deepspeed_entries import (
    CONFIG_ERRORS,
    fault,
    first_line,
    flattened,
    partitioned_entries,
    unknown_entry,
)
from dschat.runtime.distributed import ZERO_PARTITIONED, world_size

logger = logging.getLogger(__name__)

AUTO = "auto"

_PARALLEL = "ranks share the data and nothing else, and ZeRO the rest"
_ROWS = "the run picks its rows itself, by --seed and --data_split"
_STATES = "states are written and read by --save_steps and --resume"
_WRITER = "its files arrive after the state that they belong to is checked and committed"
_REASONS = {
    "bfloat16": "its name is bf16",
    "scheduler": "the learning rate follows --lr_scheduler_type, --num_warmup_steps and --warmup_ratio",
    "activation_checkpointing": "activations are recomputed with {flags.gradient_checkpointing}",
    "managed_gradient_accumulation": "gradients are accumulated by --gradient_accumulation_steps",
    "torch_autocast": "precision is --dtype's",
    "data_types.param_dtype": "precision is --dtype's",
    "optimizer.params.max_grad_norm": "its name is gradient_clipping, at the top of the file",
    "zero_optimization.cpu_offload": "it is what --offload does",
    "zero_optimization.cpu_offload_param": "it is what --offload does",
    "zero_optimization.cpu_offload_use_pin_memory": "its name is pin_memory, in offload_optimizer and offload_param",
    "checkpoint.writer": _WRITER,
    "datastates_ckpt": _WRITER,
    "checkpoint.load_universal": _STATES,
    "checkpoint.use_node_local_storage": _STATES,
    "zero_optimization.elastic_checkpoint": _STATES,
    "zero_optimization.compute_grad_norm": "the log and the clipping need the norm of the gradient",
    "dataloader_drop_last": _ROWS,
    "data_efficiency": _ROWS,
    "pipeline": _PARALLEL,
    "sequence_parallel_size": _PARALLEL,
    "tensor_parallel": _PARALLEL,
    "expert_parallel": _PARALLEL,
    "use_data_before_expert_parallelism": _PARALLEL,
    "hybrid_engine": "answers are sampled by the models that are trained",
    "autotuning": "it belongs to a launcher of DeepSpeed's own",
    "weight_quantization": "it is for inference alone",
    "compile": "models are not compiled",
    "aio": "nothing is kept on NVMe",
}
"""Entries that would have no effect, or spoil what a run promises, and why."""


@dataclass(frozen=True)
class TrainingFlags:
    """The flags of one trained model that have another name in another step, for messages; here those of one model."""

    learning_rate: str = "--learning_rate"
    weight_decay: str = "--weight_decay"
    micro_batch_size: str = "--per_device_train_batch_size"
    zero_stage: str = "--zero_stage"
    gradient_checkpointing: str = "--gradient_checkpointing"


class Trained(NamedTuple):
    """One model that a step trains, as the flags describe it."""

    placement: Placement
    optimization: Optimization
    flags: TrainingFlags


def overrides_of(runtime: RuntimeConfig, trained: Trained) -> dict[str, Any]:
    """The entries of `--deepspeed_config` that change something for one trained model; empty without the flag.

    Args:
        runtime: names the file.
        trained: the model.
    Raises:
        UserError: an entry contradicts a flag, would have no effect on any model, or is none that DeepSpeed takes.
    """
    path = runtime.deepspeed_config
    if path is None:
        return {}
    return _selected(_checked(path, runtime, trained), lambda name, _: _lacking(name, trained) is None)


def check_overrides(runtime: RuntimeConfig, trained_models: Callable[[], Mapping[str, Trained]]) -> None:
    """Check `--deepspeed_config` for all models that a step trains, and log what it changes for which.

    Args:
        runtime: names the file; nothing happens without.
        trained_models: gives the models by role; not called where there is no file.
    Raises:
        UserError: see `overrides_of`.
    """
    path = runtime.deepspeed_config
    if path is None:
        return
    models = trained_models()
    lacking: dict[str, list[str | None]] = {}
    for trained in models.values():
        for name, _ in flattened(_checked(path, runtime, trained)):
            lacking.setdefault(name, []).append(_lacking(name, trained))
    for name, needs in lacking.items():
        if None in needs:
            continue
        wanted = " or ".join(dict.fromkeys(filter(None, needs)))
        if name.startswith("zero_optimization."):
            raise UserError(f"--deepspeed_config {path}: {name} has no effect without {wanted}; leave it out")
        logger.info("--deepspeed_config %s: %s has no effect without %s", path, name, wanted)
    for role, trained in models.items():
        found = dict(flattened(overrides_of(runtime, trained)))
        said = ", ".join(f"{name} = {value}" for name, value in found.items()) or "nothing that the flags do not say"
        logger.info("--deepspeed_config %s sets for the %s: %s", path, role, said)


@contextmanager
def blaming(runtime: RuntimeConfig, overrides: Mapping[str, Any]) -> Iterator[None]:
    """Within the body an engine is built; where DeepSpeed fails with entries of the file, UserError names them."""
    try:
        yield
    except UserError:
        raise
    except CONFIG_ERRORS as error:
        if not overrides:
            raise
        names = ", ".join(name for name, _ in flattened(overrides))
        raise UserError(
            f"--deepspeed_config {runtime.deepspeed_config}: DeepSpeed does not start with {names} "
            f"({first_line(error)}); leave out what it complains of"
        ) from error


def _checked(path: str, runtime: RuntimeConfig, trained: Trained) -> dict[str, Any]:
    """The file's entries beyond what the flags say; UserError where they cannot be."""

    def refuse(what: str) -> UserError:
        # names are the file's, and may be anything
        plain = "".join(char if char.isprintable() else repr(char)[1:-1] for char in what)
        return UserError(f"--deepspeed_config {path}: {plain}")

    settings = training_settings(trained.placement, trained.optimization)
    entries = read_deepspeed_file(path)
    flat = _flat_section(settings, entries)
    if flat is not None:
        raise refuse(flat)
    said = _selected(entries, lambda _, value: value != AUTO)
    for name, _ in flattened(said):
        entry = next((entry for entry in _REASONS if f"{name}.".startswith(f"{entry}.")), None)
        if entry is not None:
            reason = _REASONS[entry].format(flags=trained.flags)
            raise refuse(f"{entry} has no place here: {reason}; leave it out")
    unknown = unknown_entry(settings, entries)
    if unknown is not None:
        raise refuse(unknown)
    implied = _implied(runtime, trained)
    for name, value in flattened(said):
        if name in implied and not any(_same(value, one) for one in implied[name].values):
            raise refuse(f"{name} is {value}, but {implied[name].advice}")
    beyond = _selected(said, lambda name, _: name not in implied)
    problem = fault(settings, beyond)
    if problem is not None:
        raise refuse(problem)
    return beyond


def _flat_section(settings: Mapping[str, Any], entries: Mapping[str, Any], prefix: str = "") -> str | None:
    """A sentence about an entry that is a section in the settings and none in the file, None where there is none."""
    for key, value in entries.items():
        usual = settings.get(key)
        if not isinstance(usual, Mapping):
            continue
        if isinstance(value, Mapping):
            found = _flat_section(usual, value, f"{prefix}{key}.")
            if found is not None:
                return found
        elif value != AUTO:
            return f"{prefix}{key} is {value!r}, but must hold an object, such as {usual}"
    return None


def _selected(entries: Mapping[str, Any], keep: Callable[[str, Any], bool], prefix: str = "") -> dict[str, Any]:
    """The values that `keep(name, value)` wants, in their sections; sections that are left empty are dropped."""
    result: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping):
            value = _selected(value, keep, f"{prefix}{key}.")
            if value:
                result[key] = value
        elif keep(f"{prefix}{key}", value):
            result[key] = value
    return result


class _Implied(NamedTuple):
    """What the flags make of an entry."""

    values: tuple[Any, ...]
    """The first is what the run does; the others mean the same."""
    advice: str
    """The end of a sentence that begins with another value."""


def _implied(runtime: RuntimeConfig, trained: Trained) -> dict[str, _Implied]:
    """The entries that flags set, under their full names."""
    placement, optimization, flags = trained
    micro, accumulation = optimization.micro_batch_size, optimization.schedule.gradient_accumulation_steps

    def by(flag: str, *values: Any) -> _Implied:
        return _Implied(values, f"{flag} makes it {values[0]}; change the flag and leave the entry out")

    def by_offload(stages: tuple[int, ...]) -> _Implied:
        if placement.offload and placement.stage in stages:
            return _Implied(("cpu",), "--offload makes it cpu; leave the entry out")
        need = f"--offload and {flags.zero_stage} {' or '.join(map(str, stages))}"
        return _Implied(("none",), f"nothing is offloaded without {need}; leave the entry out, or pass those flags")

    # fp16 runs as bf16 where the device has none, and stage 0 in bf16 as stage 1
    stages = (placement.stage, 0) if placement.dtype == "bf16" and placement.stage == 1 else (placement.stage,)
    return {
        "train_micro_batch_size_per_gpu": by(flags.micro_batch_size, micro),
        "gradient_accumulation_steps": by("--gradient_accumulation_steps", accumulation),
        "train_batch_size": _Implied(
            (micro * accumulation * world_size(),),
            f"{flags.micro_batch_size} {micro} times --gradient_accumulation_steps {accumulation} on {world_size()} "
            f"device(s) makes it {micro * accumulation * world_size()}; change those flags and leave the entry out",
        ),
        **{
            f"{dtype}.enabled": by("--dtype", placement.dtype == dtype, runtime.dtype == dtype)
            for dtype in ("fp16", "bf16")
        },
        "optimizer.type": _Implied(("AdamW", "adamw"), "the optimizer of every step is AdamW; leave the entry out"),
        "optimizer.params.lr": by(flags.learning_rate, optimization.learning_rate),
        "optimizer.params.weight_decay": by(flags.weight_decay, optimization.weight_decay),
        "optimizer.params.adam_w_mode": by(flags.weight_decay, True),
        "zero_optimization.stage": by(flags.zero_stage, *stages),
        "zero_optimization.offload_optimizer.device": by_offload((1, 2, 3)),
        "zero_optimization.offload_param.device": by_offload((ZERO_PARTITIONED,)),
    }


def _same(value: Any, other: Any) -> bool:
    return isinstance(value, bool) == isinstance(other, bool) and bool(value == other)


def _lacking(name: str, trained: Trained) -> str | None:
    """The flags without which an entry has no effect on a model, None where it has."""
    placement, _, flags = trained
    section, _, rest = name.partition(".")
    if section in ("fp16", "bf16") and placement.dtype != section:
        return f"--dtype {section}"
    if section != "zero_optimization":
        return None
    entry = rest.partition(".")[0]
    needs_partition = entry in partitioned_entries()
    needs_offload = entry in ("offload_optimizer", "offload_param")
    stages = (ZERO_PARTITIONED,) if needs_partition else (1, 2, 3)
    if placement.stage in stages and (placement.offload or not needs_offload):
        return None
    return f"{'--offload and ' * needs_offload}{flags.zero_stage} {' or '.join(map(str, stages))}"

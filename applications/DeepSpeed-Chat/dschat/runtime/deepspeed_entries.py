"""Which entries and values the installed DeepSpeed takes, asked of DeepSpeed itself before an engine is built."""

from __future__ import annotations

import difflib
import inspect
import typing
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

import torch
from pydantic import BaseModel, ValidationError

CONFIG_ERRORS = (
    *(AssertionError, AttributeError, ImportError, IndexError, KeyError, NotImplementedError, TypeError, ValueError),
)
"""What DeepSpeed raises about settings, besides its own DeepSpeedConfigError."""

_BATCH_SIZES = ("train_batch_size", "gradient_accumulation_steps")
_LEAST = {"train_micro_batch_size_per_gpu": 1}
"""Settings that DeepSpeed takes."""
_MAY_BE_ZERO = ("gradient_clipping",)


class _Watched(dict[str, Any]):
    """A dictionary that remembers what it was asked for: DeepSpeed has no list of the entries that it reads."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        super().__init__({k: _Watched(v) if isinstance(v, Mapping) else v for k, v in entries.items()})
        self.asked: dict[str, Any] = {}
        """Entries that were looked for, with the value that stands for one that is not there."""

    def get(self, key: str, default: Any = None) -> Any:
        if self.asked.get(key) is None:
            self.asked[key] = default
        return super().get(key, default)

    def __getitem__(self, key: str) -> Any:
        self.asked.setdefault(key, None)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.setdefault(str(key), None)
        return super().__contains__(key)

    def keys(self) -> Any:
        return self

    def __copy__(self) -> _Watched:
        return self


def flattened(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that is no section, under a name such as `zero_optimization.stage`; sections without entries too."""
    for key, value in entries.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the entries of others in place of their own, section by section."""
    result = dict(base)
    for key, value in over.items():
        both = isinstance(value, Mapping) and isinstance(base.get(key), Mapping)
        result[key] = merged(base[key], value) if both else value
    return result


def _refusal(settings: dict[str, Any]) -> Exception | None:
    """What DeepSpeed raises when it reads settings, None where it takes them."""
    from deepspeed.runtime.config import DeepSpeedConfig, DeepSpeedConfigError

    try:
        DeepSpeedConfig(settings)
    except (DeepSpeedConfigError, *CONFIG_ERRORS) as error:
        return error
    return None


@cache
def _looked_up(section: str | None = None) -> dict[str, Any]:
    """What DeepSpeed looks up, with its defaults: at the top of its settings, or in a section without a model."""
    # optimizers and schedulers are looked into where they have a type
    settings = _Watched(_LEAST | ({} if section is None else {section: {"type": ""}}))
    watched = settings if section is None else settings[section]
    _refusal(settings)
    return watched.asked


@cache
def _model_of(section: str) -> type[BaseModel] | None:
    """The pydantic model of a section, as it tells when it is given what no model has; None for a section without."""
    from deepspeed.runtime.config_utils import DeepSpeedConfigModel

    def descendants(kind: type[BaseModel]) -> Iterator[type[BaseModel]]:
        for child in kind.__subclasses__():
            yield child
            yield from descendants(child)

    error = _refusal(_LEAST | {section: {"": None}})
    if not isinstance(error, ValidationError):
        return None
    model = next((kind for kind in descendants(DeepSpeedConfigModel) if kind.__name__ == error.title), None)
    for part in error.errors()[0]["loc"][:-1]:  # a model of several sections
        model = None if model is None else _model_of_field(model, str(part))
    return model


def _model_of_field(model: type[BaseModel], name: str) -> type[BaseModel] | None:
    field = model.model_fields.get(name)
    kinds = () if field is None else (field.annotation, *typing.get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def unknown_entry(settings: Mapping[str, Any], entries: Mapping[str, Any]) -> str | None:
    """A sentence about the first entry that DeepSpeed does not know, whatever its value; None where it knows all.

    Args:
        settings: whole settings, which say what the optimizer will be.
        entries: of the file.
    """
    for name, value in entries.items():
        if name not in _looked_up():
            return _unknown(name, _looked_up())
        if not isinstance(value, Mapping):
            continue
        model = _model_of(name)
        found = _unknown_in_model(value, model, name) if model else _unknown_in_section(settings, value, name)
        if found is not None:
            return found
    return None


def _unknown_in_model(entries: Mapping[str, Any], model: type[BaseModel], section: str) -> str | None:
    known = [name for field, info in model.model_fields.items() for name in (info.alias, field) if name]
    for name, value in entries.items():
        if name not in known:
            return _unknown(name, known, section)
        inner = _model_of_field(model, name)
        if inner is not None and isinstance(value, Mapping):
            found = _unknown_in_model(value, inner, f"{section}.{name}")
            if found is not None:
                return found
    return None


def _unknown_in_section(settings: Mapping[str, Any], entries: Mapping[str, Any], section: str) -> str | None:
    known: Collection[str] = _looked_up(section)
    for name in entries if known else ():
        if name not in known:
            return _unknown(name, known, section)
    if section == "optimizer" and isinstance(entries.get("params"), Mapping):
        known = _optimizer_parameters(merged(settings, {section: entries}))
        for name in entries["params"]:
            if name not in known:
                return _unknown(name, known, f"{section}.params")
    return None


def _unknown(name: str, known: Collection[str], section: str = "") -> str:
    near = difflib.get_close_matches(name, sorted(known), n=1)
    place = f"{section}." if section else ""
    hint = f"did you mean {place}{near[0]}?" if near else "leave it out"
    return f"DeepSpeed knows no entry {place}{name}; {hint}"


def partitioned_entries() -> frozenset[str]:
    """Entries of `zero_optimization` that ZeRO stage 3 alone reads, under both of their names."""
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    mark = "stage3_"
    names = {
        name
        for field, info in DeepSpeedZeroConfig.model_fields.items()
        if (info.alias or field).startswith(mark)
        for name in (field, info.alias or field)
    }
    return frozenset({"offload_param", *names})


def fault(settings: Mapping[str, Any], entries: Mapping[str, Any]) -> str | None:
    """Why DeepSpeed does not take settings with some entries merged into them, None where it does.

    Args:
        settings: whole settings, which DeepSpeed takes.
        entries: further ones, of which `unknown_entry` knows all.
    """
    found = (
        _kind_fault(settings, entries)
        or _reading_fault({key: value for key, value in settings.items() if key not in _BATCH_SIZES}, entries)
        or _optimizer_fault(merged(settings, entries))
    )
    return found and f"{found}; correct it or leave it out"


def _reading_fault(settings: Mapping[str, Any], entries: Mapping[str, Any]) -> str | None:
    error = _refusal(merged(settings, entries))
    if error is None:
        return None
    if isinstance(error, ValidationError):
        return _model_fault(error, entries)
    for name in entries if len(entries) > 1 else ():
        alone = _reading_fault(settings, {name: entries[name]})
        if alone is not None:
            return alone
    return f"DeepSpeed refuses {', '.join(entries)} ({first_line(error)})"


def _model_fault(error: ValidationError, entries: Mapping[str, Any]) -> str:
    """What a pydantic model of DeepSpeed says, with the entry's name as the file has it."""
    first = error.errors()[0]
    path = [str(part) for part in first["loc"]]
    section = next((key for key, value in entries.items() if path and _reaches(value, path)), None)
    if section is not None:
        path = [section, *path]
    what = first["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ").rstrip(".")
    if not path:
        return f"DeepSpeed refuses it ({what})"
    return f"{'.'.join(path)} is {first['input']!r}: {what}"


def _reaches(value: Any, path: list[str]) -> bool:
    for part in path:
        if not isinstance(value, Mapping) or part not in value:
            return False
        value = value[part]
    return True


def _kind_fault(settings: Mapping[str, Any], entries: Mapping[str, Any]) -> str | None:
    """A value at the top level of another kind than DeepSpeed's own; it would break in the middle of training."""
    for name, value in entries.items():
        usual = settings.get(name, _looked_up()[name])
        if isinstance(usual, bool) and not isinstance(value, bool):
            return f"{name} is {value!r}, but must be true or false"
        if isinstance(usual, bool) or not isinstance(usual, int | float):
            continue
        if isinstance(value, bool) or not isinstance(value, int | type(usual)):
            return f"{name} is {value!r}, but must be a {'whole ' * isinstance(usual, int)}number"
        if value < 0 or (value == 0 and name not in _MAY_BE_ZERO):
            return f"{name} is {value!r}, but must be {'at least' if name in _MAY_BE_ZERO else 'above'} 0"
    return None


def _optimizer_fault(settings: Mapping[str, Any]) -> str | None:
    """A parameter that the optimizer does not take with this value."""
    parameters = dict(settings["optimizer"]["params"])
    if not isinstance(parameters["torch_adam"], bool):
        return f"optimizer.params.torch_adam is {parameters['torch_adam']!r}, but must be true or false"
    common = {name: parameters[name] for name in ("lr", "betas", "eps") if name in parameters}
    try:
        torch.optim.AdamW([torch.zeros(1)], **common)
    except CONFIG_ERRORS as error:
        return f"optimizer.params cannot be {common} ({first_line(error)})"
    return None


def _optimizer_parameters(settings: Mapping[str, Any]) -> frozenset[str]:
    """Names of what the AdamW takes that the engine will choose."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam, FusedAdam

    own = {"torch_adam", "adam_w_mode"}
    if settings["optimizer"]["params"]["torch_adam"]:
        kind: type = torch.optim.AdamW
    elif settings["zero_optimization"].get("offload_optimizer", {}).get("device") == "cpu":
        kind = DeepSpeedCPUAdam
    else:
        kind = FusedAdam
    return frozenset(own | set(inspect.signature(kind).parameters)) - {"params", "model_params"}


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the end that would break a sentence."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(". ") if lines else type(error).__name__

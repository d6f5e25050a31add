"""LoRA adapters by peft, put into a model in place, so that the model stays of its own class.

An adapted layer adds the product of two thin matrices to a frozen one, W x + (alpha / r) B A x (Hu et al. 2021,
arXiv 2106.09685). The sum is never written back while training goes on: a saved folder holds it, worked out on a copy.
"""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate import init_empty_weights
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from dschat.config.lora import AdapterSettings
from dschat.errors import UserError

ADAPTER_FOLDER = "adapter"
"""Where the adapter by itself stands in the folder of the whole model."""

_NAME = "default"  # peft's own
_HEAD = "score"
_ADAPTER_FILE = "adapter_model.safetensors"
_PREFIX = "base_model.model."  # of every name in an adapter's file, from peft's wrapper


def add_adapter(model: PreTrainedModel, adapter: AdapterSettings, *, seed: int) -> None:
    """Put a LoRA adapter into a model and freeze what it replaces; at first it changes no output.

    A score head is trained as a copy beside its frozen original where the adapter is trained alone, so that
    `WithoutAdapter` gives the model as it was, head and all.

    Args:
        model: a causal language model or a sequence classifier.
        adapter: rank, scale, layers.
        seed: of the random matrices A, which are then the same at every ZeRO stage and on every rank.
    Raises:
        UserError: no layer has one of the names.
    """
    names = adapted_layers(model, adapter)
    is_classifier = hasattr(model, _HEAD)
    settings = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        target_modules=names,
        modules_to_save=[_HEAD] if is_classifier and adapter.alone else None,
        fan_in_fan_out=isinstance(model.get_submodule(names[0]), Conv1D),
        task_type="SEQ_CLS" if is_classifier else "CAUSAL_LM",
        base_model_name_or_path=_absolute(str(model.name_or_path)),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        inject_adapter_in_model(settings, model, adapter_name=_NAME)
    if not adapter.alone:
        model.requires_grad_(True)
        for _, layer in _adapted(model):
            layer.get_base_layer().weight.requires_grad_(False)


def adapted_layers(model: PreTrainedModel, adapter: AdapterSettings) -> list[str]:
    """Names of the linear layers that an adapter goes to; UserError where there is none."""
    outputs = (model.get_output_embeddings(), getattr(model, _HEAD, None))
    linear = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and not any(module is output for output in outputs)
    ]
    wanted = adapter.module_names
    chosen = [name for name in linear if not wanted or any(part in name for part in wanted)]
    if not chosen:
        kinds = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in linear}))
        raise UserError(
            f"--{adapter.role}lora_module_name {' '.join(wanted)} is in no linear layer's name of "
            f"{model.name_or_path or 'the model'}, such as {linear[0]}; leave it out to adapt all of them, or choose "
            f"among {kinds}"
        )
    return chosen


def check_adapter(config: PretrainedConfig, adapter: AdapterSettings | None) -> None:
    """Raise UserError if a model with this config cannot be adapted so on this machine; no weights are read."""
    if adapter is None:
        return
    if adapter.quantized:
        flag = f"--{adapter.role}quantize 4bit"
        if not torch.cuda.is_available():
            raise UserError(f"{flag} needs a CUDA device, and there is none; drop it: LoRA itself trains on any device")
        if importlib.util.find_spec("bitsandbytes") is None:
            raise UserError(f"{flag} needs the package bitsandbytes; pip install bitsandbytes")
    with init_empty_weights():
        adapted_layers(AutoModelForCausalLM.from_config(config), adapter)


@dataclass(frozen=True)
class AdapterSizes:
    """Numbers of weights of an adapted causal language model."""

    total: int
    """Of the model and its adapter."""
    trained: int
    frozen_linear: int
    """In the matrices of linear layers other than the output layer, which 4 bits would hold."""


def adapter_sizes(config: PretrainedConfig, adapter: AdapterSettings) -> AdapterSizes:
    """Numbers of weights of a causal language model with an adapter; nothing is allocated."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(config)
        linear = adapted_layers(model, replace(adapter, module_names=()))
        frozen = sum(model.get_submodule(name).weight.numel() for name in linear)
        add_adapter(model, adapter, seed=0)
    model.tie_weights()  # the empty weights have come apart
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return AdapterSizes(sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained), frozen)


@contextmanager
def adapter_off(model: nn.Module) -> Iterator[None]:
    """Within the body the model computes what it did before it was adapted, exactly."""
    layers = [module for module in model.modules() if isinstance(module, LoraLayer | ModulesToSaveWrapper)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


class _Adapted(Protocol):
    """An adapted model, or the engine that trains it."""

    @property
    def module(self) -> nn.Module:
        """The model."""
        ...

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """What its forward returns."""
        ...


class WithoutAdapter:
    """The frozen model inside an adapted one, called like it: no second copy of the weights is kept."""

    def __init__(self, engine: _Adapted) -> None:
        """Look into the adapted model.

        Args:
            engine: the DeepSpeed engine that trains the adapter alone.
        """
        self._engine = engine

    @property
    def module(self) -> nn.Module:
        """The model, whose adapter is on unless it is called through this object."""
        return self._engine.module

    def __call__(self, **inputs: Any) -> Any:
        """What the model gave before it was adapted; the caller has put it in eval mode and wants no gradients."""
        if self._engine.module.training:
            raise RuntimeError("the frozen model is read in training mode, with dropout; call eval() first")
        with adapter_off(self._engine.module):
            return self._engine(**inputs)


FrozenModel = nn.Module | WithoutAdapter
"""A model that is called and never trained: a module, a DeepSpeed engine around one, or a trained one's inside."""


def inner_module(model: FrozenModel | _Adapted) -> nn.Module:
    """The module that a DeepSpeed engine or `WithoutAdapter` holds; any other module itself."""
    inner = getattr(model, "module", model)
    assert isinstance(inner, nn.Module)
    return inner


def save_weights(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Write a model as a plain Hugging Face folder; an adapter is added to the weights, and stands beside them.

    Args:
        model: gives config and names; left as it is.
        weights: every weight, whole, such as [O, I], under its name in `model`, which holds those in 4 bits itself.
        folder: gets the files of the whole model and, where the adapter alone is trained, `adapter` in peft's layout.
    """
    settings = _settings(model)
    if settings is None:
        model.save_pretrained(folder, state_dict=dict(weights))
        return
    merged = merged_weights(model, _in_full_precision(model, weights))
    _unquantized(model).save_pretrained(folder, state_dict=merged)
    if not model.get_input_embeddings().weight.requires_grad:
        _save_adapter(model, settings, weights, folder / ADAPTER_FOLDER)


def merged_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of the plain model that computes the same: W + (alpha / r) B A under the name of W.

    Args:
        model: holds the adapter's layers.
        weights: every weight under its name in `model`, on one device.
    Returns:
        weights in the precision of W [O, I]; the product of B [O, R] and A [R, I] and the sum are in float32.
    """
    merged = dict(weights)
    for name, layer in _adapted(model):
        down = merged.pop(f"{name}.lora_A.{_NAME}.weight").float()
        up = merged.pop(f"{name}.lora_B.{_NAME}.weight").float()
        product = layer.scaling[_NAME] * (up @ down)
        frozen = merged.pop(f"{name}.base_layer.weight")
        merged[f"{name}.weight"] = (frozen.float() + (product.T if layer.fan_in_fan_out else product)).to(frozen.dtype)
        if f"{name}.base_layer.bias" in merged:
            merged[f"{name}.bias"] = merged.pop(f"{name}.base_layer.bias")
    for name, module in model.named_modules():
        if isinstance(module, ModulesToSaveWrapper):
            del merged[f"{name}.original_module.weight"]
            merged[f"{name}.weight"] = merged.pop(f"{name}.modules_to_save.{_NAME}.weight")
    return merged


def _adapted(model: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def _in_full_precision(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights, with those that lie in 4 bits as the forward pass reads them."""
    full = dict(weights)
    for name, module in model.named_modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            # optional, and there where such a weight is
            from bitsandbytes.functional import dequantize_4bit

            full[f"{name}.weight"] = dequantize_4bit(module.weight.data, state).cpu()
    return full


def _unquantized(model: PreTrainedModel) -> PreTrainedModel:
    """The model itself, or an empty one of its shape whose saving does not ask a quantizer for the weights."""
    if not getattr(model, "is_quantized", False):
        return model
    config = copy.deepcopy(model.config)
    del config.quantization_config
    with init_empty_weights():
        shape = type(model)(config)
    nn.Module.to(shape, model.dtype)
    if model.can_generate():
        shape.generation_config = model.generation_config
    return shape


def _settings(model: nn.Module) -> LoraConfig | None:
    return getattr(model, "peft_config", {}).get(_NAME)


def _save_adapter(model: nn.Module, settings: LoraConfig, weights: Mapping[str, Tensor], folder: Path) -> None:
    folder.mkdir(parents=True)
    own = get_peft_model_state_dict(model, state_dict=dict(weights), adapter_name=_NAME, save_embedding_layers=False)
    named = {f"{_PREFIX}{name}": weight.contiguous() for name, weight in own.items()}
    save_file(named, str(folder / _ADAPTER_FILE), metadata={"format": "pt"})
    settings.save_pretrained(str(folder))


def _absolute(path: str) -> str:
    """A local folder's absolute path, so that the adapter finds its base from anywhere; a hub name as it is."""
    return str(Path(path).absolute()) if Path(path).is_dir() else path

"""Adapters: where they go, what they change, and the folders they leave."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedModel

from dschat.config.lora import AdapterSettings
from dschat.errors import UserError
from dschat.models.causal_lm import enable_gradient_checkpointing, load_causal_lm
from dschat.models.lora import (
    WithoutAdapter,
    adapted_layers,
    adapter_off,
    adapter_sizes,
    add_adapter,
    check_adapter,
    save_weights,
)
from dschat.models.reward_model import TokenScorer, load_token_scorer
from toys.models import FAMILIES, bare_checkpoint, make_causal_lm, make_config

VOCABULARY = 47
IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
BLOCK_LAYERS = {"gemma": 7, "llama": 7, "qwen2": 7, "gpt2": 4, "opt": 6}


def settings(*names: str, alone: bool = True, rank: int = 4, alpha: float = 8.0) -> AdapterSettings:
    return AdapterSettings(
        rank=rank, alpha=alpha, module_names=names, learning_rate=1e-3, alone=alone, quantized=False,
        role="",
    )  # fmt: skip


def train_a_little(model: nn.Module) -> None:
    """Move every trainable weight, as an optimizer would."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


def load(folder: Path, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    return load_causal_lm(bare_checkpoint(folder, num_tokens=VOCABULARY), dtype=dtype).eval()


def load_scorer(folder: Path, *, fresh_head: bool = False) -> TokenScorer:
    checked = bare_checkpoint(folder, num_tokens=VOCABULARY)
    return load_token_scorer(checked, fresh_head=fresh_head, dtype=torch.float32).eval()


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters()}


@torch.no_grad()
def logits(model: nn.Module) -> Tensor:
    return model(input_ids=IDS).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_an_adapter_goes_to_every_linear_layer_of_the_blocks_and_changes_nothing_at_first(family: str) -> None:
    model = make_causal_lm(family, vocab_size=VOCABULARY)
    before, model_class = logits(model), type(model)
    add_adapter(model, settings(), seed=0)
    assert torch.equal(logits(model), before)
    assert type(model) is model_class
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert len(trained) == 2 * 2 * BLOCK_LAYERS[family]  # A and B, two blocks
    assert all(".lora_" in name for name in trained)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_its_adapter_a_trained_model_is_its_base_exactly(family: str) -> None:
    model = make_causal_lm(family, vocab_size=VOCABULARY)
    before = logits(model)
    add_adapter(model, settings(), seed=0)
    train_a_little(model)
    after = logits(model)
    assert (after - before).abs().max() > 0.1
    with adapter_off(model):
        assert torch.equal(logits(model), before)
    assert torch.equal(logits(model), after)
    assert all(parameter.requires_grad == (".lora_" in name) for name, parameter in model.named_parameters())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("q_proj", "v_proj"), ["q_proj", "v_proj"] * 2),
        (("layers.1.mlp",), ["gate_proj", "up_proj", "down_proj"]),
    ],
)
def test_layers_are_chosen_by_parts_of_their_names(names: tuple[str, ...], expected: list[str]) -> None:
    chosen = adapted_layers(make_causal_lm("llama", vocab_size=VOCABULARY), settings(*names))
    assert [name.rsplit(".", 1)[-1] for name in chosen] == expected


def test_the_published_filter_fits_opt_and_is_refused_where_it_fits_nothing() -> None:
    published = settings("decoder.layers.")
    assert len(adapted_layers(make_causal_lm("opt", vocab_size=VOCABULARY), published)) == 2 * BLOCK_LAYERS["opt"]
    with pytest.raises(UserError, match=r"--lora_module_name decoder\.layers\. is in no linear layer's name") as caught:
        check_adapter(make_config("gemma", vocab_size=VOCABULARY), published)
    assert "choose among down_proj, gate_proj, k_proj" in str(caught.value)


def test_beside_an_adapter_all_but_the_adapted_matrices_are_trained_unless_it_is_alone() -> None:
    model = make_causal_lm("gpt2", vocab_size=VOCABULARY)
    add_adapter(model, settings("c_attn", alone=False), seed=0)
    frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
    assert frozen == [f"transformer.h.{i}.attn.c_attn.base_layer.weight" for i in (0, 1)]


def test_the_random_matrices_depend_on_the_seed_alone() -> None:
    first, second, other = (make_causal_lm("llama", vocab_size=VOCABULARY) for _ in range(3))
    add_adapter(first, settings(), seed=3)
    torch.rand(7)
    state = torch.random.get_rng_state()
    add_adapter(second, settings(), seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    add_adapter(other, settings(), seed=4)
    ours, again, others = (weights(model) for model in (first, second, other))
    name = "model.layers.0.mlp.up_proj.lora_A.default.weight"
    assert torch.equal(ours[name], again[name])
    assert not torch.equal(ours[name], others[name])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.1)])
def test_a_saved_folder_computes_what_the_adapted_model_does(
    family: str, dtype: torch.dtype, tolerance: float, tmp_path: Path
) -> None:
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path / "base")
    model = load(tmp_path / "base", dtype)
    add_adapter(model, settings(), seed=0)
    train_a_little(model)
    before = weights(model)
    save_weights(model, before, tmp_path / "saved")
    assert all(torch.equal(value, before[name]) for name, value in model.named_parameters())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert plain.dtype == dtype
    torch.testing.assert_close(logits(plain), logits(model), atol=tolerance, rtol=tolerance)
    # the library's own way from the two parts
    base = load(tmp_path / "base", dtype)
    again = PeftModel.from_pretrained(base, tmp_path / "saved/adapter", autocast_adapter_dtype=False).eval()
    assert torch.equal(logits(again), logits(model))
    torch.testing.assert_close(logits(again.merge_and_unload()), logits(plain), atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_merged_weight_is_the_sum_rounded_once(family: str, tmp_path: Path) -> None:
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path / "base")
    model = load(tmp_path / "base", torch.bfloat16)
    names = adapted_layers(model, settings())
    add_adapter(model, settings(), seed=0)
    train_a_little(model)
    own = weights(model)
    save_weights(model, own, tmp_path / "saved")
    merged = load_file(tmp_path / "saved/model.safetensors")
    for name in names:
        base, down, up = (
            own[f"{name}.{part}.weight"].double() for part in ("base_layer", "lora_A.default", "lora_B.default")
        )
        product = 2.0 * up @ down  # alpha / rank = 8 / 4
        exact = base + (product.T if family == "gpt2" else product)
        # half a unit in the last of bf16's 8 bits; the product is summed in float32
        assert ((merged[f"{name}.weight"].double() - exact).abs() <= 2**-8 * exact.abs() + 1e-6).all()


def test_a_merged_model_errs_like_any_model_rounded_to_bf16(tmp_path: Path) -> None:
    model = make_causal_lm("llama", vocab_size=VOCABULARY)
    add_adapter(model, settings(), seed=0)
    train_a_little(model.bfloat16())
    save_weights(model, weights(model), tmp_path / "saved")
    exact = logits(model.float())
    errors = [
        (logits(load(tmp_path / "saved", dtype)).float() - exact).abs() for dtype in (torch.float32, torch.bfloat16)
    ]
    rounding = (logits(model.bfloat16()).float() - exact).abs()
    # float32 arithmetic shows what merging cost; bf16 arithmetic costs as much again, merged or not
    assert errors[0].mean() < 2 * rounding.mean()
    assert errors[1].mean() < 2 * rounding.mean()


def test_an_adapter_that_is_not_alone_is_not_saved_by_itself(tmp_path: Path) -> None:
    model = make_causal_lm("llama", vocab_size=VOCABULARY)
    add_adapter(model, settings(alone=False), seed=0)
    train_a_little(model)
    save_weights(model, weights(model), tmp_path / "saved")
    assert not (tmp_path / "saved/adapter").exists()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    torch.testing.assert_close(logits(plain), logits(model), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_scorer_learns_its_head_and_keeps_the_old_one(family: str, tmp_path: Path) -> None:
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path / "sft")
    fresh = load_scorer(tmp_path / "sft", fresh_head=True)
    fresh.model.save_pretrained(tmp_path / "base")
    scorer, ones = load_scorer(tmp_path / "base"), torch.ones_like(IDS)
    with torch.no_grad():
        before = scorer(IDS, ones)
        add_adapter(scorer.model, settings(), seed=0)
        assert torch.equal(scorer(IDS, ones), before)
        train_a_little(scorer)
        after = scorer(IDS, ones)
        engine = Engine(scorer)
        assert torch.equal(WithoutAdapter(engine)(input_ids=IDS, attention_mask=ones), before)
        assert torch.equal(scorer(IDS, ones), after)
        trained = {name for name, parameter in scorer.named_parameters() if parameter.requires_grad}
        assert {name for name in trained if ".lora_" not in name} == {"model.score.modules_to_save.default.weight"}
        save_weights(scorer.model, weights(scorer.model), tmp_path / "saved")
        plain = load_scorer(tmp_path / "saved")
        torch.testing.assert_close(plain(IDS, ones), after, atol=1e-4, rtol=1e-4)
        base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
        again = PeftModel.from_pretrained(base, tmp_path / "saved/adapter").merge_and_unload().eval()
        torch.testing.assert_close(TokenScorer(again)(IDS, ones), after, atol=1e-4, rtol=1e-4)


class Engine(SimpleNamespace):
    """As much of a DeepSpeed engine as `WithoutAdapter` uses."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module=module)

    def __call__(self, **inputs: Tensor) -> Tensor:
        return self.module(**inputs)


def test_the_frozen_model_is_not_read_with_dropout() -> None:
    model = make_causal_lm("gpt2", vocab_size=VOCABULARY)
    add_adapter(model, settings(), seed=0)
    with pytest.raises(RuntimeError, match="training mode"):
        WithoutAdapter(Engine(model.train()))(input_ids=IDS)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_the_same_with_gradient_checkpointing(family: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        model = make_causal_lm(family, vocab_size=VOCABULARY)
        add_adapter(model, settings(), seed=0)
        train_a_little(model)
        if checkpointing:
            enable_gradient_checkpointing(model)
        model.train()
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        model(input_ids=IDS, labels=IDS, use_cache=False).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    plain, checkpointed = gradients
    assert plain.keys() == checkpointed.keys()
    assert len(plain) == 4 * BLOCK_LAYERS[family]
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("alone", [True, False])
def test_sizes_are_counted_without_weights(alone: bool) -> None:
    model = make_causal_lm("gpt2", vocab_size=VOCABULARY)
    linear = sum(model.get_submodule(name).weight.numel() for name in adapted_layers(model, settings()))
    add_adapter(model, settings("c_fc", alone=alone), seed=0)
    sizes = adapter_sizes(make_config("gpt2", vocab_size=VOCABULARY), settings("c_fc", alone=alone))
    assert sizes.total == sum(p.numel() for p in model.parameters())
    assert sizes.trained == sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert sizes.frozen_linear == linear


@pytest.mark.parametrize("role", ["", "actor_"])
def test_four_bits_are_refused_without_a_gpu(role: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--{role}quantize 4bit needs a CUDA device, and there is none; drop it"):
        check_adapter(make_config("llama", vocab_size=VOCABULARY), replace(settings(), quantized=True, role=role))


def test_four_bits_are_refused_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="--quantize 4bit needs the package bitsandbytes; pip install"):
        check_adapter(make_config("llama", vocab_size=VOCABULARY), replace(settings(), quantized=True))


@pytest.mark.parametrize("family", ["gemma", "llama", "opt"])
def test_an_adapter_of_a_model_in_four_bits_is_saved_in_sixteen(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modules = pytest.importorskip("bitsandbytes").nn.modules
    monkeypatch.setattr(modules, "has_avx512bf16", lambda: False)  # its layout for CPUs needs wider layers than ours
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path / "base")
    checked = bare_checkpoint(tmp_path / "base", num_tokens=VOCABULARY)
    model = load_causal_lm(checked, dtype=torch.bfloat16, four_bit=True).eval()
    before = logits(model)
    add_adapter(model, settings(), seed=0)
    train_a_little(model)
    with adapter_off(model):
        assert torch.equal(logits(model), before)
    save_weights(model, weights(model), tmp_path / "saved")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert plain.dtype == torch.bfloat16
    assert not hasattr(plain.config, "quantization_config")
    torch.testing.assert_close(logits(plain).float(), logits(model).float(), atol=0.15, rtol=0.1)
    # 4 bits are far from the weights that they stand for, so this was no comparison of equals with equals
    assert (logits(load(tmp_path / "base", torch.bfloat16)) - before).abs().max() > 0.15

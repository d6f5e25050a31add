"""Tiny models of every supported family, built from configs."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PretrainedConfig,
    PreTrainedModel,
    Qwen2Config,
)

from dschat.models.checked import CheckedModel
from toys.tokenizers import make_word_tokenizer

FAMILIES = ("gemma", "llama", "qwen2", "gpt2", "opt")


def make_config(family: str, *, vocab_size: int, positions: int = 128) -> PretrainedConfig:
    """A two-layer config of width 32."""
    rotary = {
        "vocab_size": vocab_size,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": positions,
    }
    match family:
        case "gemma":
            return GemmaConfig(**rotary, head_dim=8)
        case "llama":
            return LlamaConfig(**rotary)
        case "qwen2":
            return Qwen2Config(**rotary)
        case "gpt2":
            return GPT2Config(vocab_size=vocab_size, n_embd=32, n_layer=2, n_head=4, n_positions=positions)
        case "opt":
            return OPTConfig(
                vocab_size=vocab_size, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=4,
                max_position_embeddings=positions, word_embed_proj_dim=32,
            )  # fmt: skip
    raise ValueError(f"unknown family {family!r}")


def make_causal_lm(family: str, *, vocab_size: int, seed: int = 0, positions: int = 128) -> PreTrainedModel:
    """A randomly initialised model in float32; weights are drawn wide enough that logits differ clearly."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(family, vocab_size=vocab_size, positions=positions))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=0.2)
    return model.float().eval()


def bare_checkpoint(folder: Path, *, num_tokens: int) -> CheckedModel:
    """A folder of a model without a tokenizer, with one of so many made-up words, of which the first is padding."""
    config = AutoConfig.from_pretrained(folder)
    return CheckedModel("model_name_or_path", str(folder), config, make_word_tokenizer(num_tokens), False)

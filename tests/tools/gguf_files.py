"""Small GGUF files, written with the package gguf as llama.cpp's converter writes them."""

from __future__ import annotations

import json
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from dschat.errors import UserError
from dschat.tools.import_gguf import ImportOptions, import_gguf
from toys.tokenizers import make_tokenizer

NORMAL, CONTROL = 1, 3
TEMPLATE = (
    "{{ bos_token }}{% for turn in messages %}{{ turn['role'] }}: {{ turn['content'] }}<turn_end>\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def write_llama(
    path: Path,
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    *,
    kind: str = "F32",
    architecture: str = "llama",
    splitting: str = "gpt-2",
    settings: dict[str, int | str] | None = None,
    leave_out: str | None = None,
) -> Path:
    """Write a Llama with a byte-level tokenizer as a GGUF file.

    Args:
        path: of the file.
        model: in float32.
        tokenizer: its chat template is written too.
        kind: how matrices are stored: F32, F16, BF16, Q8_0, …; vectors are F32.
        architecture: the family that the file names.
        splitting: the rule by which the file says that texts are split.
        settings: more single values by their key.
        leave_out: a weight of the model that the file lacks; "all" for a file of the vocabulary alone.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    _write_tokenizer(writer, tokenizer, splitting)
    for key, value in (settings or {}).items():
        if isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_uint32(key, value)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, weight in model.state_dict().items():
        if leave_out in (name, "all"):
            continue
        values = weight.numpy()
        for projection, count in heads.items():
            if projection in name:
                # llama.cpp rotates neighbours, transformers the two halves of a head
                pairs = values.reshape(count, 2, values.shape[0] // count // 2, values.shape[1])
                values = np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(values.shape))
        stored = gguf.GGMLQuantizationType[kind if values.ndim > 1 else "F32"]
        target = names.get_name(name.removesuffix(".weight")) + ".weight"
        writer.add_tensor(target, gguf.quantize(values, stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _write_tokenizer(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, splitting: str) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
    merges = json.loads(tokenizer.backend_tokenizer.to_str())["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(splitting)
    writer.add_token_list(tokens)
    writer.add_token_types([CONTROL if token in special else NORMAL for token in range(len(tokens))])
    writer.add_token_merges([" ".join(pair) for pair in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(True)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def make_chat_tokenizer(*extra: str, template: str | None = None) -> PreTrainedTokenizerFast:
    """A tokenizer with more special tokens and a chat template."""
    tokenizer = make_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": list(extra)})
    tokenizer.chat_template = template
    return tokenizer


@torch.no_grad()
def logits(model: torch.nn.Module) -> torch.Tensor:
    """Of the same 36 tokens for every model, [1, 36, V]."""
    return model(torch.arange(4, 40)[None]).logits


def imported(path: Path, output: Path, **options: object) -> Path:
    """The folder that an import of a file writes."""
    return import_gguf(ImportOptions(gguf=(str(path),), output=output, **options))  # type: ignore[arg-type]


def refused(path: Path, output: Path, **options: object) -> str:
    """The one sentence with which an import ends; it leaves nothing behind."""
    with pytest.raises(UserError) as caught:
        imported(path, output, **options)
    assert not output.exists()
    assert [entry.name for entry in output.parent.glob(".tmp-*")] == []
    message = str(caught.value)
    assert "\n" not in message
    return message

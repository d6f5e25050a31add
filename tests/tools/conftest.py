"""A toy model and its GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import LlamaForCausalLM

from tests.tools.gguf_files import TEMPLATE, make_chat_tokenizer, write_llama
from toys.models import make_causal_lm


@pytest.fixture(scope="session")
def model() -> LlamaForCausalLM:
    """In float32; tests leave it as it is."""
    return make_causal_lm("llama", vocab_size=len(make_chat_tokenizer("<turn_end>")))


@pytest.fixture(scope="session")
def file(model: LlamaForCausalLM, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole and readable file in float32."""
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    return write_llama(path, model, make_chat_tokenizer("<turn_end>", template=TEMPLATE))

"""The tokenizer and the model that the quickstart starts from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from dschat.tools.tiny_model import TinyModelSize, new_model, train_tokenizer

TEXTS = ["def read(path): return the bytes of a file\n", "Return a list of the words in the string.\n"] * 20
SIZE = TinyModelSize(vocab_size=300, hidden_size=24, num_layers=2, num_heads=3, max_length=47)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(TEXTS, vocab_size=SIZE.vocab_size, max_length=SIZE.max_length)


def test_any_text_survives_encoding_and_decoding(tokenizer: PreTrainedTokenizerFast) -> None:
    for text in ("Return a list.", "  leading , odd . spacing\n\ttabs", "Grüße, 世界 🎉", "a<b>c"):
        ids = tokenizer(text).input_ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_texts_begin_with_bos_once_and_pad_is_not_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    ids = tokenizer("Return a list." + tokenizer.eos_token).input_ids

    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[-1] == tokenizer.eos_token_id
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id}) == 3


def test_merges_are_learned_from_the_texts(tokenizer: PreTrainedTokenizerFast) -> None:
    assert len(tokenizer) == SIZE.vocab_size
    text = TEXTS[1]
    assert len(tokenizer(text).input_ids) < len(text) / 2


def test_chat_template_ends_the_assistants_turn_with_eos(tokenizer: PreTrainedTokenizerFast) -> None:
    messages = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day"}]

    text = tokenizer.apply_chat_template(messages, tokenize=False)
    asking = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)

    assert text == "<bos>Human: Hello\nAssistant: Good day<eos>\n"
    assert asking == "<bos>Human: Hello\nAssistant: "


def test_default_size_has_about_a_million_parameters(tokenizer: PreTrainedTokenizerFast) -> None:
    embedding_rows_missing = TinyModelSize().vocab_size - len(tokenizer)

    count = new_model(tokenizer, TinyModelSize(), seed=0).num_parameters()

    assert 1.0e6 < count + embedding_rows_missing * TinyModelSize().hidden_size < 1.2e6


def test_seed_decides_the_weights_and_leaves_the_global_generator_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    before = torch.random.get_rng_state()

    first, again, other = (new_model(tokenizer, SIZE, seed=seed) for seed in (5, 5, 6))

    assert torch.equal(torch.random.get_rng_state(), before)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)


def test_saved_folder_loads_with_plain_transformers(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = new_model(tokenizer, SIZE, seed=0).eval()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    loaded_tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    ids = loaded_tokenizer("Return the words", return_tensors="pt").input_ids
    assert ids.tolist() == [tokenizer("Return the words").input_ids]
    assert loaded_tokenizer.chat_template == tokenizer.chat_template
    assert loaded_tokenizer.pad_token_id == loaded.config.pad_token_id
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, model(ids).logits, atol=1e-6, rtol=1e-5)

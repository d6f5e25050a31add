"""Forwards of actor and reference for every supported family."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from dschat.errors import UserError
from dschat.models.causal_lm import (
    grow_embeddings,
    load_causal_lm,
    position_ids,
    positional_inputs,
    real_logits,
    response_logits,
    token_entropies,
    token_log_probs,
)
from dschat.models.checked import check_model
from dschat.models.tokenizer import Vocabulary
from dschat.runtime.model_folders import save_model
from toys.models import FAMILIES, bare_checkpoint, make_causal_lm
from toys.tokenizers import make_tokenizer

VOCABULARY = 47


@pytest.mark.parametrize("family", FAMILIES)
def test_left_padding_changes_no_response_logit(family: str) -> None:
    model = make_causal_lm(family, vocab_size=VOCABULARY)
    row = torch.randint(3, VOCABULARY, (1, 9), generator=torch.Generator().manual_seed(1))
    padded = torch.cat([torch.zeros(1, 5, dtype=torch.long), row], dim=-1)
    mask = torch.cat([torch.zeros(1, 5, dtype=torch.long), torch.ones_like(row)], dim=-1)
    with torch.no_grad():
        alone = response_logits(model, type(model), row, torch.ones_like(row), width=4)
        among = response_logits(model, type(model), padded, mask, width=4)
        full = model(input_ids=row).logits[:, 4:8]
    torch.testing.assert_close(alone, full, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, among, atol=1e-5, rtol=1e-5)
    assert alone.shape == (1, 4, VOCABULARY)


def test_token_entropies_equal_those_of_the_distributions() -> None:
    logits = 5 * torch.randn(3, 5, 31, generator=torch.Generator().manual_seed(0))
    expected = torch.distributions.Categorical(logits=logits.double()).entropy()
    torch.testing.assert_close(token_entropies(logits).double(), expected, atol=1e-5, rtol=1e-5)
    assert token_entropies(torch.zeros(1, 1, 31)).item() == pytest.approx(math.log(31))


def test_token_log_probs_equal_log_softmax() -> None:
    logits = 20 * torch.randn(3, 5, 31, generator=torch.Generator().manual_seed(0))
    tokens = torch.randint(0, 31, (3, 5), generator=torch.Generator().manual_seed(1))
    expected = logits.double().log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
    torch.testing.assert_close(token_log_probs(logits, tokens).double(), expected, atol=1e-5, rtol=1e-5)
    flat = token_log_probs(logits.flatten(0, 1), tokens.flatten())
    torch.testing.assert_close(flat, token_log_probs(logits, tokens).flatten())


def test_token_log_probs_of_half_precision_logits_are_float32() -> None:
    logits = torch.randn(4, 31, dtype=torch.bfloat16)
    result = token_log_probs(logits, torch.zeros(4, dtype=torch.long))
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, logits.float().log_softmax(-1)[:, 0], atol=1e-5, rtol=1e-5)


def test_position_ids_count_real_tokens() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 1], [1, 1, 0, 0, 0]])
    assert position_ids(mask).tolist() == [[0, 0, 0, 1, 2], [0, 1, 1, 1, 1]]


def test_positional_inputs_follow_the_architecture() -> None:
    mask = torch.ones(1, 3, dtype=torch.long)
    with_positions = positional_inputs(type(make_causal_lm("gpt2", vocab_size=VOCABULARY)), mask)
    assert set(with_positions) == {"attention_mask", "position_ids"}

    class WithoutPositions(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return input_ids

    assert set(positional_inputs(WithoutPositions, mask)) == {"attention_mask"}


@pytest.mark.parametrize("family", FAMILIES)
def test_embeddings_grow_and_never_shrink(family: str) -> None:
    model = make_causal_lm(family, vocab_size=VOCABULARY)
    before = model.get_input_embeddings().weight.detach().clone()
    grow_embeddings(model, VOCABULARY - 10)
    assert torch.equal(model.get_input_embeddings().weight, before)
    grow_embeddings(model, VOCABULARY + 3)
    after = model.get_input_embeddings().weight
    assert after.shape[0] == 56  # the next multiple of 8
    assert torch.equal(after[:VOCABULARY], before)


@pytest.mark.parametrize("family", FAMILIES)
def test_dropout_acts_in_training_alone(family: str, tmp_path: Path) -> None:
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path)
    checked = bare_checkpoint(tmp_path, num_tokens=VOCABULARY)
    ids = torch.arange(5, 25)[None]
    outputs = {}
    for rate in (0.0, 0.5):
        model = load_causal_lm(checked, dtype=torch.float32, dropout=rate)
        for training in (False, True):
            with torch.no_grad():
                outputs[rate, training] = model.train(training)(input_ids=ids).logits
    plain = outputs[0.0, False]
    assert torch.equal(outputs[0.5, False], plain)
    torch.testing.assert_close(outputs[0.0, True], plain, atol=1e-5, rtol=1e-5)
    assert (outputs[0.5, True] - plain).abs().max() > 1e-2


def test_loading_a_folder_without_weights_says_so(tmp_path: Path) -> None:
    make_causal_lm("llama", vocab_size=VOCABULARY).config.save_pretrained(tmp_path)
    with pytest.raises(UserError, match="cannot be loaded as a causal language model"):
        load_causal_lm(bare_checkpoint(tmp_path, num_tokens=VOCABULARY), dtype=torch.float32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_logits_of_ids_without_a_token_take_no_probability_and_no_gradient(dtype: torch.dtype) -> None:
    logits = (5 * torch.randn(2, 3, 31, generator=torch.Generator().manual_seed(0))).to(dtype).requires_grad_()
    real = real_logits(logits, Vocabulary(29, (0, 7)))
    kept = [index for index in range(29) if index not in (0, 7)]
    assert real.dtype == dtype and real.isfinite().all()
    alone = logits.detach()[..., kept].float()
    torch.testing.assert_close(real.float().log_softmax(-1)[..., kept], alone.log_softmax(-1))
    torch.testing.assert_close(token_entropies(real), torch.distributions.Categorical(logits=alone).entropy())
    token_entropies(real).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    assert logits.grad[..., [0, 7, 29, 30]].eq(0).all() and logits.grad[..., kept].ne(0).any()


def test_logits_without_gaps_are_a_view() -> None:
    logits = torch.randn(2, 31)
    assert real_logits(logits, Vocabulary(29)).data_ptr() == logits.data_ptr()


@pytest.mark.parametrize("token", ["sum", None])
def test_a_saved_model_says_what_ends_its_answers(token: str | None, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    save_model(make_causal_lm("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "base")
    checked = check_model("model", str(tmp_path / "base"), end_of_conversation_token=token)
    save_model(load_causal_lm(checked, dtype=torch.float32), checked.tokenizer, tmp_path / "saved")
    end = tokenizer.eos_token_id if token is None else checked.tokenizer.convert_tokens_to_ids(token)
    # whoever loads the folder stops there: this package without the flag, and the library
    assert end in check_model("model", str(tmp_path / "saved")).end_ids
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[end] = model.model(torch.tensor([[5, 6]])).last_hidden_state[0, -1]
    if token is not None:
        answer = model.generate(torch.tensor([[5, 6]]), max_new_tokens=4, do_sample=False)
        assert answer.tolist() == [[5, 6, end]]

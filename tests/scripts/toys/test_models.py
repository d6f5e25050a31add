"""Tiny models of every family: small, seeded, and with logits that differ clearly."""

from __future__ import annotations

import pytest
import torch

from toys.models import FAMILIES, make_causal_lm, make_config


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_is_small_and_the_same_for_a_seed(family: str) -> None:
    first, again, other = (make_causal_lm(family, vocab_size=64, seed=seed) for seed in (0, 0, 1))
    assert first.config.model_type == make_config(family, vocab_size=64).model_type == family
    assert first.num_parameters() < 60_000
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        logits, same, different = (model(ids).logits for model in (first, again, other))
    assert torch.equal(logits, same) and not torch.equal(logits, different)
    assert logits.std() > 0.1


def test_another_family_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown family 'bert'"):
        make_config("bert", vocab_size=64)

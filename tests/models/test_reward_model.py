"""The token scorer, its loss and its checkpoints."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from dschat.errors import UserError
from dschat.models.reward_model import (
    TokenScorer,
    check_has_head,
    end_scores,
    load_token_scorer,
    pairwise_loss,
)
from toys.models import FAMILIES, bare_checkpoint, make_causal_lm

VOCABULARY = 47
PAD = 0


def load(path: Path, *, fresh_head: bool) -> TokenScorer:
    checked = bare_checkpoint(path, num_tokens=VOCABULARY)
    return load_token_scorer(checked, fresh_head=fresh_head, dtype=torch.float32, dropout=0.0).eval()


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_padding_and_survive_a_save(family: str, tmp_path: Path) -> None:
    make_causal_lm(family, vocab_size=VOCABULARY).save_pretrained(tmp_path / "sft")
    torch.manual_seed(0)
    scorer = load(tmp_path / "sft", fresh_head=True)
    scorer.model.save_pretrained(tmp_path / "reward")
    again = load(tmp_path / "reward", fresh_head=False)
    row = torch.randint(3, VOCABULARY, (1, 7), generator=torch.Generator().manual_seed(1))
    pad, ones = torch.zeros(1, 4, dtype=torch.long), torch.ones_like(row)
    with torch.no_grad():
        alone = scorer(row, ones)
        left = scorer(torch.cat([pad, row], -1), torch.cat([pad, ones], -1))[:, 4:]
        right = again(torch.cat([row, pad], -1), torch.cat([ones, pad], -1))[:, :7]
    assert alone.shape == (1, 7)
    torch.testing.assert_close(alone, left, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, right, atol=1e-5, rtol=1e-5)


def test_score_includes_the_final_eos_where_the_library_skips_it(tmp_path: Path) -> None:
    make_causal_lm("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path / "sft")
    torch.manual_seed(0)
    scorer = load(tmp_path / "sft", fresh_head=True)
    ending_in_eos = torch.tensor([[5, 6, 7, PAD]])  # the padding token is the EOS
    mask = torch.ones_like(ending_in_eos)
    with torch.no_grad():
        scores = scorer(ending_in_eos, mask)
        pooled = scorer.model(input_ids=ending_in_eos, attention_mask=mask).logits[0, 0]
    assert end_scores(scores, mask).item() == scores[0, 3].item()
    assert pooled.item() == pytest.approx(scores[0, 2].item(), abs=1e-6)


def test_a_language_model_is_refused_where_a_reward_model_is_needed(tmp_path: Path) -> None:
    make_causal_lm("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"has no score head.*pass the step_<n> folder"):
        load(tmp_path, fresh_head=False)
    with pytest.raises(UserError, match=r"--critic_model_name_or_path .*no score head"):
        check_has_head(replace(bare_checkpoint(tmp_path, num_tokens=VOCABULARY), flag="critic_model_name_or_path"))


def test_a_reward_model_passes_the_check_and_loads_with_the_plain_library(tmp_path: Path) -> None:
    make_causal_lm("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path / "sft")
    scorer = load(tmp_path / "sft", fresh_head=True)
    scorer.model.save_pretrained(tmp_path / "reward")
    check_has_head(bare_checkpoint(tmp_path / "reward", num_tokens=VOCABULARY))
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward").eval()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        expected = scorer(ids, torch.ones_like(ids))[0, -1].item()
        assert plain(input_ids=ids).logits.item() == pytest.approx(expected, abs=1e-6)


def test_a_damaged_weights_file_is_named(tmp_path: Path) -> None:
    make_causal_lm("llama", vocab_size=VOCABULARY).save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:100])
    with pytest.raises(UserError, match=r"model\.safetensors is damaged or incomplete"):
        check_has_head(replace(bare_checkpoint(tmp_path, num_tokens=VOCABULARY), flag="critic_model_name_or_path"))


def naive_pair_loss(chosen: list[float], rejected: list[float], ids_c: list[int], ids_r: list[int]) -> float:
    """The docstring of pairwise_loss, token by token; the lists hold real tokens alone."""
    longest = max(len(ids_c), len(ids_r))
    start = next((t for t in range(longest) if ids_c[t : t + 1] != ids_r[t : t + 1]), longest)
    terms = []
    for t in range(start, longest):
        difference = chosen[min(t, len(chosen) - 1)] - rejected[min(t, len(rejected) - 1)]
        terms.append(math.log1p(math.exp(-difference)))
    return sum(terms) / len(terms) if terms else 0.0


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pad", [0, 1])
def test_pairwise_loss_equals_the_loop(seed: int, pad: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    pairs, width = 5, 12
    lengths = torch.randint(2, width + 1, (2 * pairs,), generator=generator)
    # few distinct ids, among them the padding token, so that rows share prefixes and real tokens look like padding
    ids = torch.randint(0, 2, (2 * pairs, width), generator=generator)
    ids[pairs] = ids[0]
    lengths[pairs] = lengths[0]
    mask = (torch.arange(width)[None] < lengths[:, None]).long()
    ids = torch.where(mask.bool(), ids, torch.tensor(pad))
    scores = torch.randn(2 * pairs, width, generator=generator)
    losses = pairwise_loss(scores, mask, ids)

    def real(table: Tensor, row: int) -> list[float]:
        return table[row, : lengths[row]].tolist()

    for pair in range(pairs):
        other = pair + pairs
        expected = naive_pair_loss(real(scores, pair), real(scores, other), real(ids, pair), real(ids, other))
        assert losses[pair].item() == pytest.approx(expected, rel=1e-5, abs=1e-7)
    assert losses[0].item() == 0.0


def test_end_scores_find_the_last_token_on_either_side_of_padding() -> None:
    scores = torch.arange(10.0).view(2, 5)
    mask = torch.tensor([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    assert end_scores(scores, mask).tolist() == [2.0, 9.0]

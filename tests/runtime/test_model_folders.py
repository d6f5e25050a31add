"""Exported model folders."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from dschat.runtime.model_folders import link, link_files, save_model
from toys.models import FAMILIES, make_causal_lm
from toys.tokenizers import make_tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_folder_loads_with_the_plain_library_bit_for_bit(family: str, tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    model = make_causal_lm(family, vocab_size=len(tokenizer))
    save_model(model, tokenizer, tmp_path / "step_7")
    link_files(tmp_path / "step_7", tmp_path)
    for folder in (tmp_path / "step_7", tmp_path):
        again = AutoModelForCausalLM.from_pretrained(folder)
        ours, theirs = dict(model.named_parameters()), dict(again.named_parameters())
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()
    assert list(tmp_path.glob(".tmp*")) == []


def test_a_link_is_relative_and_replaces_what_stood_there(tmp_path: Path) -> None:
    for step in (1, 2):
        (tmp_path / f"step-{step}").mkdir()
        (tmp_path / f"step-{step}" / "file").write_text(str(step))
    (tmp_path / "actor").mkdir()
    for step in (1, 2):
        link(tmp_path / f"step-{step}", tmp_path / "actor")
        assert (tmp_path / "actor" / "file").read_text() == str(step)
    assert not (tmp_path / "actor").readlink().is_absolute()

"""Checkpoints that are looked at once: where they are, what is known of them before weights are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import GenerationConfig

from dschat.errors import UserError
from dschat.models.checked import check_model, find_model
from toys.models import bare_checkpoint, make_causal_lm
from toys.tokenizers import make_tokenizer

FLAG = "model_name_or_path"
VOCABULARY = 47


def save(folder: Path, family: str = "llama", **settings: object) -> str:
    tokenizer = make_tokenizer()
    make_causal_lm(family, vocab_size=len(tokenizer), **settings).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "models/summarize/sft"])
def test_what_looks_like_a_folder_never_goes_to_the_hub(name: str) -> None:
    with pytest.raises(UserError, match=r"--model_name_or_path .* there is no folder /"):
        check_model(FLAG, name)


def test_a_hub_name_is_left_alone_and_a_folder_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "sft")
    monkeypatch.chdir(tmp_path)
    assert find_model(FLAG, "google/gemma-2b") == "google/gemma-2b"
    assert check_model(FLAG, "sft").path == str(tmp_path / "sft")


def test_a_folder_without_config_names_the_model_below_it(tmp_path: Path) -> None:
    save(tmp_path / "run" / "step_3")
    with pytest.raises(UserError, match=r"run has no config\.json; did you mean .*/run/step_3\?"):
        check_model(FLAG, str(tmp_path / "run"))


def test_dropout_overrides_every_rate_and_the_config_stays_as_it_was(tmp_path: Path) -> None:
    make_causal_lm("gpt2", vocab_size=VOCABULARY).save_pretrained(tmp_path)
    checked = bare_checkpoint(tmp_path, num_tokens=VOCABULARY)
    config = checked.own_config(dropout=0.0)
    assert (config.resid_pdrop, config.embd_pdrop, config.attn_pdrop) == (0.0, 0.0, 0.0)
    assert checked.own_config(dropout=None).resid_pdrop == checked.config.resid_pdrop == 0.1
    assert checked.own_config(dropout=None) is not checked.config


def test_rows_longer_than_the_positions_are_refused(tmp_path: Path) -> None:
    checked = check_model(FLAG, save(tmp_path, positions=64))
    assert checked.num_positions == 64
    checked.check_rows(64, "--max_seq_len")
    with pytest.raises(UserError, match="--max_seq_len make rows of 65 tokens, but the model has 64"):
        checked.check_rows(65, "--max_seq_len")


@pytest.mark.parametrize(("declared", "ids"), [(7, (7,)), ([7, 9], (7, 9))], ids=str)
def test_end_tokens_that_the_folder_declares(declared: int | list[int], ids: tuple[int, ...], tmp_path: Path) -> None:
    checked = check_model(FLAG, save(tmp_path))
    GenerationConfig(eos_token_id=declared).save_pretrained(tmp_path)
    assert checked.declared_end_ids == ids


def test_a_config_alone_declares_no_end(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = tmp_path / "generation_config.json"
    assert json.loads(file.read_text())["eos_token_id"] == 2  # the default of the model's class
    assert check_model(FLAG, path).declared_end_ids == ()
    file.unlink()
    assert check_model(FLAG, path).declared_end_ids == ()


@pytest.mark.parametrize("content", [{"num_return_sequences": 2}, {"max_new_tokens": "12"}], ids=str)
def test_generation_settings_that_the_library_refuses_are_a_sentence(content: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path)
    (tmp_path / "generation_config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"generation_config\.json cannot be read \(.*\); mend it, or delete it"):
        _ = check_model(FLAG, path).declared_end_ids

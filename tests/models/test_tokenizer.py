"""The rule for special tokens."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import sentencepiece
from transformers import PreTrainedTokenizerFast

from dschat.errors import UserError
from dschat.models.checked import check_model
from dschat.models.tokenizer import Vocabulary, check_same_tokenizer, end_of_conversation_id, end_of_conversation_text
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer, make_tokenizer_with_gaps


def save(folder: Path, tokenizer: PreTrainedTokenizerFast) -> str:
    tokenizer.save_pretrained(folder)
    make_causal_lm("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    return str(folder)


def load(path: str, token: str | None = None) -> PreTrainedTokenizerFast:
    return check_model("model_name_or_path", path, end_of_conversation_token=token).tokenizer


def test_missing_padding_token_becomes_the_eos_and_adds_no_row(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    bare = PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer, eos_token="<eos>")
    loaded = load(save(tmp_path, bare))
    assert loaded.pad_token_id == loaded.eos_token_id
    assert len(loaded) == len(bare)


def test_an_existing_padding_token_is_kept(tmp_path: Path) -> None:
    assert load(save(tmp_path, make_tokenizer())).pad_token == "<pad>"


@pytest.mark.parametrize("token", [None, "None", "<eos>"])
def test_the_end_of_conversation_is_the_eos_unless_told_otherwise(token: str | None, tmp_path: Path) -> None:
    loaded = load(save(tmp_path, make_tokenizer()), token)
    assert end_of_conversation_text(loaded, token) == "<eos>"
    assert end_of_conversation_id(loaded, token) == loaded.eos_token_id
    assert len(loaded) == len(make_tokenizer())


def test_an_unknown_end_of_conversation_becomes_exactly_one_token(tmp_path: Path) -> None:
    loaded = load(save(tmp_path, make_tokenizer()), "<|endoftext|>")
    assert len(loaded) == len(make_tokenizer()) + 1
    ids = loaded("cat<|endoftext|>", add_special_tokens=False).input_ids
    assert ids[-1] == end_of_conversation_id(loaded, "<|endoftext|>") == len(loaded) - 1
    # and the next step finds it in the folder that this one wrote
    again = load(save(tmp_path / "next", loaded), "<|endoftext|>")
    assert len(again) == len(loaded)


def test_a_tokenizer_without_eos_is_refused(tmp_path: Path) -> None:
    bare = PreTrainedTokenizerFast(tokenizer_object=make_tokenizer().backend_tokenizer)
    with pytest.raises(UserError, match=r"no EOS token.*set eos_token in its tokenizer_config"):
        load(save(tmp_path, bare))


def test_a_sentencepiece_model_is_loaded(tmp_path: Path) -> None:
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sees a bird", "the dog runs to the tree"] * 20), model_writer=trained,
        vocab_size=40, hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (tmp_path / "tokenizer.model").write_bytes(trained.getvalue())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    make_causal_lm("llama", vocab_size=64).save_pretrained(tmp_path)
    loaded = load(str(tmp_path))
    ids = loaded("the cat runs", add_special_tokens=False).input_ids
    assert loaded.decode(ids).strip() == "the cat runs"
    assert loaded.eos_token_id is not None


def test_same_tokenizers_pass_and_different_ones_are_told_apart() -> None:
    check_same_tokenizer(make_tokenizer(), make_tokenizer(pad="eos"))
    with pytest.raises(UserError, match=r"different tokenizers \(300 and 280 tokens, for example"):
        check_same_tokenizer(make_tokenizer(), make_tokenizer(vocab_size=280))


def test_a_vocabulary_reaches_to_the_highest_id_and_knows_its_gaps(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    assert Vocabulary.of(tokenizer) == Vocabulary(len(tokenizer))
    gapped = load(save(tmp_path, make_tokenizer_with_gaps(eos=305)), "<end>")
    assert Vocabulary.of(gapped) == Vocabulary(307, (3, 300, 301, 302, 303, 304))
    assert len(gapped) == 301 and end_of_conversation_id(gapped, "<end>") == 306

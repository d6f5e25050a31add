"""Where answers end, and which tokens end them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.errors import UserError
from dschat.generation import Answers, EndTokens
from dschat.models.checked import check_model
from dschat.models.tokenizer import Vocabulary
from dschat.runtime.model_folders import save_model
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer, make_tokenizer_with_gaps

EOS, OTHER_STOP = 2, 3
TOKENIZER = make_tokenizer()


def loop_mask(row: list[int], stop: set[int]) -> list[bool]:
    """True up to and including the first stop token."""
    mask, open_ = [], True
    for token in row:
        mask.append(open_)
        open_ = open_ and token not in stop
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_mask_and_lengths_equal_the_loop(seed: int) -> None:
    tokens = torch.randint(0, 6, (7, 11), generator=torch.Generator().manual_seed(seed))
    answers = Answers.from_tokens(tokens, (EOS, OTHER_STOP))
    expected = [loop_mask(row, {EOS, OTHER_STOP}) for row in tokens.tolist()]
    assert answers.mask.tolist() == expected
    assert answers.lengths.tolist() == [sum(row) for row in expected]
    assert answers.ended.tolist() == [bool({EOS, OTHER_STOP} & set(row)) for row in tokens.tolist()]
    assert answers.ids() == [row[: sum(mask)] for row, mask in zip(tokens.tolist(), expected, strict=True)]


def test_a_sampled_padding_token_inside_an_answer_is_a_token() -> None:
    assert Answers.from_tokens(torch.tensor([[5, 0, 6, EOS, 0]]), (EOS,)).ids() == [[5, 0, 6, EOS]]


def test_without_stop_tokens_no_answer_ends() -> None:
    answers = Answers.from_tokens(torch.tensor([[5, EOS, 6]]), ())
    assert answers.ids() == [[5, EOS, 6]] and not answers.ended.any()


def test_answers_of_broken_logits_have_no_text() -> None:
    broken = Answers.from_tokens(torch.tensor([[5, 6], [7, 8]]), (EOS,), finite=torch.tensor([True, False]))
    with pytest.raises(UserError, match="logits are NaN or infinite"):
        broken.ids()


@pytest.mark.parametrize(
    ("declared", "token", "stop"),
    [
        ({"eos_token_id": [7, 9]}, None, (3, 7, 9)),
        ({"eos_token_id": 7}, "<eos>", (3, 7)),
        ({"eos_token_id": 7}, "sum", (3, 7, "sum")),
        ({}, None, (3,)),
        # the class's default, written by the library when the model was saved
        ({"eos_token_id": 7, "_from_model_config": True}, None, (3,)),
    ],
)
def test_end_tokens_are_the_tokenizers_the_conversations_and_those_that_the_folder_declares(
    declared: dict[str, Any], token: str | None, stop: tuple[Any, ...], tmp_path: Path
) -> None:
    save_model(make_causal_lm("llama", vocab_size=len(TOKENIZER)), TOKENIZER, tmp_path / "model")
    (tmp_path / "model" / "generation_config.json").write_text(json.dumps(declared))
    checked = check_model("model", str(tmp_path / "model"), end_of_conversation_token=token)
    ends = EndTokens.of(checked)
    assert set(ends.stop) == {TOKENIZER.get_vocab()[each] if isinstance(each, str) else each for each in stop}
    assert ends.pad == TOKENIZER.pad_token_id and ends.vocabulary == Vocabulary(300)


def test_ids_between_tokens_are_known_as_gaps(tmp_path: Path) -> None:
    save_model(make_causal_lm("llama", vocab_size=320), make_tokenizer_with_gaps(eos=305), tmp_path / "model")
    ends = EndTokens.of(check_model("model", str(tmp_path / "model")))
    assert ends.stop == (305,)
    assert ends.vocabulary == Vocabulary(306, (3, 300, 301, 302, 303, 304))

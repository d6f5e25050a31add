from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dschat.data.stages import PPO, REWARD, SFT
from dschat.data.tokenise import Sample, TextEncoder, _tokenizer_key, end_of_conversation_id
from dschat.errors import UserError
from toys.tokenizers import make_tokenizer

CUE = "\nTL;DR: "
TOKENIZERS = {(pad, bos): make_tokenizer(pad=pad, bos=bos) for pad in ("pad", "eos") for bos in (True, False)}
each_tokenizer = pytest.mark.parametrize(
    "tokenizer", TOKENIZERS.values(), ids=[f"pad={p}-bos={b}" for p, b in TOKENIZERS]
)


def encode(tokenizer, stage, samples, *, max_length=1_000, end=None):
    tally = Counter()
    encoder = TextEncoder.create(tokenizer, end_of_conversation=end, max_length=max_length)
    return list(encoder.encode(samples, stage, tally)), tally


def plain(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@each_tokenizer
def test_prompt_and_answer_are_tokenised_apart_and_end_once(tokenizer):
    (item,), _ = encode(tokenizer, SFT, [Sample("The sum" + CUE, (" The total",))])
    prompt = tokenizer("The sum" + CUE)["input_ids"]
    assert item["input_ids"] == [*prompt, *plain(tokenizer, " The total"), tokenizer.eos_token_id]
    assert item["prompt_length"] == len(prompt)
    assert prompt[0] == tokenizer.bos_token_id or tokenizer.bos_token_id is None


@each_tokenizer
def test_the_boundary_is_the_same_in_all_steps(tokenizer):
    sample = Sample("What is it? Assistant:", record='{"a": 1}')
    (sft,), _ = encode(tokenizer, SFT, [replace(sample, answers=(" It is",))])
    (pair,), _ = encode(tokenizer, REWARD, [replace(sample, answers=(" It is", " No"))])
    (prompt,), _ = encode(tokenizer, PPO, [sample])
    assert pair["chosen_ids"] == sft["input_ids"]
    assert pair["rejected_ids"] == [*prompt["input_ids"], *plain(tokenizer, " No"), tokenizer.eos_token_id]
    assert sft["input_ids"][: sft["prompt_length"]] == prompt["input_ids"]
    assert sft["prompt_length"] == len(prompt["input_ids"])
    assert prompt["record"] == '{"a": 1}'


@pytest.mark.parametrize("behind", ["", "<eos>", "<eos><eos>", "<eos>\n", "<eos> ", "<eos>\n<eos>", "<eos> and more"])
def test_an_answer_ends_once_wherever_its_text_says_so(behind):
    tokenizer = make_tokenizer()
    (item,), _ = encode(tokenizer, SFT, [Sample("p", (" yes" + behind,))])
    assert item["input_ids"][item["prompt_length"] :] == [*plain(tokenizer, " yes"), tokenizer.eos_token_id]


@pytest.mark.parametrize("max_length", [1_000, 9])
def test_a_prompt_that_brings_its_own_beginning_gets_no_second_one(max_length):
    tokenizer = make_tokenizer()
    text = "user: sum and more of it\nassistant:"
    cue = "assistant:"
    (whole,), tally = encode(tokenizer, PPO, [Sample("<bos>" + text, cue=cue)], max_length=max_length)
    (expected,), _ = encode(tokenizer, PPO, [Sample(text, cue=cue)], max_length=max_length)
    assert whole == expected and tally["kept"] == 1
    assert whole["input_ids"].count(tokenizer.bos_token_id) == 1


def test_an_end_token_that_is_the_unknown_token_too_is_known():
    tokenizer = make_tokenizer()
    tokenizer.unk_token = tokenizer.eos_token  # as GPT-2's
    assert end_of_conversation_id(tokenizer, tokenizer.eos_token) == tokenizer.eos_token_id
    with pytest.raises(UserError, match="instead of one it knows"):
        end_of_conversation_id(tokenizer, "no such token")


def test_text_round_trips_with_emoji_and_nul():
    tokenizer = make_tokenizer()
    (item,), _ = encode(tokenizer, SFT, [Sample("caf\u00e9 \0 \U0001f642 Assistant:", (" \u4f60\u597d",))])
    decoded = tokenizer.decode(item["input_ids"], skip_special_tokens=True)
    assert decoded == "caf\u00e9 \0 \U0001f642 Assistant: \u4f60\u597d"


@each_tokenizer
@pytest.mark.parametrize("max_length", [40, 41, 60])
def test_long_prompt_loses_its_front_and_keeps_bos_cue_answer_and_end(tokenizer, max_length):
    text = "word " * 200 + "the end." + CUE
    (item,), tally = encode(tokenizer, SFT, [Sample(text, (" A short answer.",), cue=CUE)], max_length=max_length)
    ids, start = item["input_ids"], item["prompt_length"]
    assert len(ids) == max_length
    assert ids[start:] == [*plain(tokenizer, " A short answer."), tokenizer.eos_token_id]
    body = ids[:start]
    if tokenizer.bos_token_id is not None:
        assert body[0] == tokenizer.bos_token_id
        body = body[1:]
    assert body == plain(tokenizer, text)[-len(body) :]
    assert tokenizer.decode(body).endswith("end." + CUE)
    assert tally["shortened_prompts"] == tally["kept"] == 1
    assert tally["longest_prompt"] == len(tokenizer(text)["input_ids"])


def test_row_of_exactly_the_limit_is_not_cut_and_one_token_less_cuts_one():
    tokenizer = make_tokenizer()
    sample = Sample("some words here" + CUE, (" answer",), cue=CUE)
    (whole,), _ = encode(tokenizer, SFT, [sample])
    size = len(whole["input_ids"])
    (same,), tally = encode(tokenizer, SFT, [sample], max_length=size)
    assert same == whole and tally["shortened_prompts"] == 0
    (cut,), tally = encode(tokenizer, SFT, [sample], max_length=size - 1)
    assert cut["input_ids"] == [whole["input_ids"][0], *whole["input_ids"][2:]]
    assert tally["shortened_prompts"] == 1


@each_tokenizer
def test_row_is_dropped_only_where_cue_and_answer_do_not_fit(tokenizer):
    sample = Sample("many words before the cue" + CUE, (" answer",), cue=CUE)
    least = len(tokenizer(CUE)["input_ids"]) + len(plain(tokenizer, " answer")) + 1
    (item,), tally = encode(tokenizer, SFT, [sample], max_length=least)
    assert tokenizer.decode(item["input_ids"], skip_special_tokens=True) == CUE + " answer"
    items, tally = encode(tokenizer, SFT, [sample], max_length=least - 1)
    assert items == []
    assert (tally["rows"], tally["too_long"], tally["kept"]) == (1, 1, 0)


@given(st.text(max_size=60), st.text(min_size=1, max_size=40), st.integers(1, 80))
@settings(deadline=None, max_examples=150)
def test_no_row_is_ever_too_long_or_loses_cue_answer_or_end(front, answer, max_length):
    tokenizer = TOKENIZERS["pad", True]
    items, tally = encode(tokenizer, SFT, [Sample(front + CUE, (answer,), cue=CUE)], max_length=max_length)
    assert tally["kept"] == len(items)
    assert tally["kept"] + tally["too_long"] + tally["empty_responses"] == tally["rows"] == 1
    for item in items:
        ids, start = item["input_ids"], item["prompt_length"]
        assert len(ids) <= max_length
        assert ids[0] == tokenizer.bos_token_id
        assert ids[start:] == [*plain(tokenizer, answer), tokenizer.eos_token_id]
        assert tokenizer.decode(ids[1:start]).endswith(CUE)


def test_pair_is_cut_alike_for_both_answers():
    tokenizer = make_tokenizer()
    sample = Sample("word " * 50 + CUE, (" short", " a much longer answer than the other one"), cue=CUE)
    (item,), tally = encode(tokenizer, REWARD, [sample], max_length=70)
    start = item["chosen_ids"].index(plain(tokenizer, " short")[0])
    assert item["chosen_ids"][:start] == item["rejected_ids"][:start]
    assert len(item["rejected_ids"]) == 70 > len(item["chosen_ids"])
    assert tally["shortened_prompts"] == 1


def test_ppo_prompt_is_cut_from_the_front_to_the_limit():
    tokenizer = make_tokenizer()
    text = "word " * 50 + CUE
    (item,), tally = encode(tokenizer, PPO, [Sample(text, cue=CUE)], max_length=30)
    assert item["input_ids"] == [tokenizer.bos_token_id, *plain(tokenizer, text)[-29:]]
    assert tally["shortened_prompts"] == 1


@pytest.mark.parametrize(
    ("stage", "sample", "reason"),
    [
        (PPO, Sample(None), "empty_prompts"),
        (PPO, Sample(" \n"), "empty_prompts"),
        (SFT, Sample("p", (None,)), "empty_responses"),
        (SFT, Sample("p", ("  ",)), "empty_responses"),
        (SFT, Sample("p", ("<eos>",)), "empty_responses"),
        (REWARD, Sample("p", ("c", None)), "empty_responses"),
        (REWARD, Sample("p", (None, "r")), "empty_responses"),
        (REWARD, Sample("p", ("same", "same")), "equal_pairs"),
        (REWARD, Sample("p", ("same<eos>", "same")), "equal_pairs"),
    ],
)
def test_row_without_use_is_dropped_and_counted(stage, sample, reason):
    good = Sample("p", ("c", "r")[: len(stage.answers)])
    items, tally = encode(make_tokenizer(), stage, [good, sample, good])
    assert len(items) == 2
    assert {name: count for name, count in tally.items() if name != "longest_prompt" and count} == {
        "rows": 3,
        "kept": 2,
        reason: 1,
    }


def test_ppo_needs_no_answers():
    items, tally = encode(make_tokenizer(), PPO, [Sample("p"), Sample("q")])
    assert len(items) == tally["kept"] == 2


def test_tokenizer_that_adds_an_end_to_every_text_does_not_end_the_prompt():
    from tokenizers import processors

    tokenizer = make_tokenizer()
    eos = tokenizer.eos_token_id
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", tokenizer.bos_token_id), ("<eos>", eos)]
    )
    assert tokenizer("p")["input_ids"][-1] == eos
    (item,), _ = encode(tokenizer, PPO, [Sample("prompt text")])
    assert item["input_ids"] == [tokenizer.bos_token_id, *plain(tokenizer, "prompt text")]


def test_end_is_eos_unless_told_otherwise():
    tokenizer = make_tokenizer()
    assert end_of_conversation_id(tokenizer, None) == tokenizer.eos_token_id
    assert end_of_conversation_id(tokenizer, "<pad>") == tokenizer.pad_token_id
    (item,), _ = encode(tokenizer, SFT, [Sample("p", ("c",))], end="<pad>")
    assert item["input_ids"][-1] == tokenizer.pad_token_id


def test_end_of_several_tokens_or_of_none_is_refused():
    tokenizer = make_tokenizer()
    with pytest.raises(UserError, match=r'"<stop now>" is .* tokens .* such as <eos>'):
        end_of_conversation_id(tokenizer, "<stop now>")
    tokenizer.eos_token = None
    with pytest.raises(UserError, match=r"has no end-of-sequence token.*--end_of_conversation_token"):
        end_of_conversation_id(tokenizer, None)


def test_fingerprint_follows_what_decides_ids_and_nothing_else():
    def key(tokenizer, end=None, max_length=10):
        return TextEncoder.create(tokenizer, end_of_conversation=end, max_length=max_length).fingerprint()

    base = key(make_tokenizer())
    others = [
        key(make_tokenizer(bos=False)),
        key(make_tokenizer(vocab_size=290)),
        key(make_tokenizer(), end="<pad>"),
        key(make_tokenizer(), max_length=11),
    ]
    assert all(other != base for other in others)


def test_tokenizer_key_forgets_the_padding_and_truncation_of_earlier_calls():
    used = make_tokenizer()
    used.backend_tokenizer.enable_padding(length=9)
    used.backend_tokenizer.enable_truncation(2)
    assert _tokenizer_key(used) == _tokenizer_key(make_tokenizer())
    assert used.backend_tokenizer.to_str() != make_tokenizer().backend_tokenizer.to_str()

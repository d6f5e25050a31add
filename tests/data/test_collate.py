"""Rows collated into the batches of `data/batches.py`, and the order in which ranks see them."""

from __future__ import annotations

import json

import pytest
import torch

from dschat.data.collate import collate_pairs, collate_prompts, collate_sft

# 7 is padding and also occurs as a real token, as where pad = eos
PAD = 7


def sft_items(*lengths):
    """Rows of (prompt, answer) lengths, ids that tell row and position, the last one equal to padding."""
    return [
        {"input_ids": [100 * row + column for column in range(p + a - 1)] + [PAD], "prompt_length": p}
        for row, (p, a) in enumerate(lengths, start=1)
    ]


def test_sft_batch_labels_answers_only_and_never_padding():
    batch = collate_sft(sft_items((2, 3), (1, 1), (4, 2)), pad_token_id=PAD)
    assert batch.input_ids.tolist() == [
        [100, 101, 102, 103, 7, 7],
        [200, 7, 7, 7, 7, 7],
        [300, 301, 302, 303, 304, 7],
    ]
    assert batch.attention_mask.tolist() == [[1, 1, 1, 1, 1, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]]
    assert batch.labels.tolist() == [
        [-100, -100, 102, 103, 7, -100],
        [-100, 7, -100, -100, -100, -100],
        [-100, -100, -100, -100, 304, 7],
    ]
    assert {batch.input_ids.dtype, batch.attention_mask.dtype, batch.labels.dtype} == {torch.int64}


def test_sft_loss_on_prompts_still_leaves_padding_out():
    batch = collate_sft(sft_items((2, 3), (1, 1)), pad_token_id=PAD, loss_on_prompt=True)
    assert batch.labels.tolist() == [[100, 101, 102, 103, 7], [200, 7, -100, -100, -100]]


def test_padding_id_changes_nothing_but_padding():
    items = sft_items((3, 4), (1, 2))
    one, other = (collate_sft(items, pad_token_id=pad) for pad in (PAD, 0))
    real = one.attention_mask.bool()
    assert torch.equal(one.labels, other.labels)
    assert torch.equal(one.attention_mask, other.attention_mask)
    assert torch.equal(one.input_ids[real], other.input_ids[real])
    assert (other.input_ids[~real] == 0).all() and (~real).any()


def test_pair_batch_puts_all_chosen_before_all_rejected():
    items = [
        {"chosen_ids": [1, 2, 3], "rejected_ids": [1, 4, 5, 6, 7]},
        {"chosen_ids": [8, 9, 10, 7], "rejected_ids": [8, 9, 7]},
        {"chosen_ids": [11, 7], "rejected_ids": [11, 12]},
    ]
    batch = collate_pairs(items, pad_token_id=PAD)
    assert batch.input_ids.tolist() == [
        [1, 2, 3, 7, 7],
        [8, 9, 10, 7, 7],
        [11, 7, 7, 7, 7],
        [1, 4, 5, 6, 7],
        [8, 9, 7, 7, 7],
        [11, 12, 7, 7, 7],
    ]
    assert batch.attention_mask.sum(dim=-1).tolist() == [3, 4, 2, 5, 3, 2]


@pytest.mark.parametrize("pad_to", [None, 3, 6])
def test_prompt_batch_is_padded_on_the_left_with_its_records(pad_to):
    items = [{"input_ids": [1, 2, 3], "record": '{"prompt": "a"}'}, {"input_ids": [7], "record": '{"prompt": "b"}'}]
    batch = collate_prompts(items, pad_token_id=PAD, pad_to=pad_to)
    width = pad_to or 3
    assert batch.input_ids.tolist() == [[7] * (width - 3) + [1, 2, 3], [7] * width]
    assert batch.attention_mask.tolist() == [[0] * (width - 3) + [1, 1, 1], [0] * (width - 1) + [1]]
    assert batch.records == ({"prompt": "a"}, {"prompt": "b"})


def test_prompt_wider_than_the_width_is_an_error():
    with pytest.raises(ValueError, match="3 tokens does not fit a width of 2"):
        collate_prompts([{"input_ids": [1, 2, 3], "record": "{}"}], pad_token_id=PAD, pad_to=2)


def test_no_rows_give_empty_batches():
    assert collate_sft([], pad_token_id=PAD).labels.shape == (0, 0)
    assert collate_pairs([], pad_token_id=PAD).input_ids.shape == (0, 0)
    assert collate_prompts([], pad_token_id=PAD).records == ()


def test_batches_move_to_a_device():
    sft = collate_sft(sft_items((2, 3)), pad_token_id=PAD).to("meta")
    pairs = collate_pairs([{"chosen_ids": [1], "rejected_ids": [2]}], pad_token_id=PAD).to("meta")
    prompts = collate_prompts([{"input_ids": [1], "record": json.dumps({"prompt": "a"})}], pad_token_id=PAD).to("meta")
    tensors = [sft.input_ids, sft.attention_mask, sft.labels, pairs.input_ids, pairs.attention_mask]
    tensors += [prompts.input_ids, prompts.attention_mask]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert prompts.records == ({"prompt": "a"},)

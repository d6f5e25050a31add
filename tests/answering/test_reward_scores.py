"""Scores of answers, in the form in which the reward model was trained."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification

from dschat.answering.reward_scores import RewardScorer
from dschat.data.tokenise import TextEncoder
from dschat.models.checked import check_model
from dschat.models.reward_model import load_token_scorer


def scorer_of(folder: Path, *, longest: int) -> RewardScorer:
    checked = check_model("reward-model", str(folder))
    scorer = load_token_scorer(checked, fresh_head=False, dtype=torch.float32)
    encoder = TextEncoder.create(checked.tokenizer, end_of_conversation=None, max_length=longest)
    return RewardScorer(scorer.eval(), encoder)


def test_a_row_is_prompt_answer_and_one_end(models: Path) -> None:
    scorer = scorer_of(models / "reward/step_3", longest=60)
    tokenizer = scorer.encoder.tokenizer
    ids = scorer.token_ids("red cat", " a dog", cue="")
    expected = tokenizer("red cat").input_ids + tokenizer(" a dog", add_special_tokens=False).input_ids
    assert ids == [*expected, tokenizer.eos_token_id]
    # an end that the answer brings along is not doubled
    assert scorer.token_ids("red cat", " a dog" + tokenizer.eos_token, cue="") == ids


def test_a_long_prompt_is_cut_and_an_answer_never(models: Path) -> None:
    scorer = scorer_of(models / "reward/step_3", longest=20)
    ids = scorer.token_ids("red cat " * 30, " a dog", cue="")
    assert ids is not None and len(ids) == 20
    assert scorer.token_ids("red cat", " a dog" * 30, cue="") is None


def test_scores_of_a_batch_are_those_of_single_rows(models: Path) -> None:
    folder = models / "reward/step_3"
    scorer = scorer_of(folder, longest=60)
    rows = [scorer.token_ids("red cat", text, cue="") for text in (" a", " a big blue bird sees the tree", "")]
    scores = scorer.score([rows[0], None, *rows[1:]])
    assert scores[1] is None
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    for row, score in zip(rows, [scores[0], *scores[2:]], strict=True):
        with torch.no_grad():
            expected = model.score(model.base_model(torch.tensor([row])).last_hidden_state)[0, -1, 0]
        assert score is not None
        torch.testing.assert_close(torch.tensor(score), expected, atol=2e-6, rtol=1e-5)

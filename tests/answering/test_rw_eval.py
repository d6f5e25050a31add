"""The reward model's scores of chosen and rejected answers."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dschat.answering import rw_eval
from dschat.errors import UserError


def test_reward_scores_equal_the_model_row_by_row(models):
    folder = models / "reward" / "step_3"
    scores = rw_eval.score_pairs(str(folder), end_token=None)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
    for sample, (good, bad) in zip(rw_eval.SAMPLES, scores, strict=True):
        for text, score in zip(sample.answers, (good, bad), strict=True):
            answer = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
            ids = torch.tensor([tokenizer(sample.prompt).input_ids + answer])
            with torch.no_grad():
                hidden = model.base_model(ids).last_hidden_state
                expected = float(model.score(hidden)[0, -1, 0])
            assert score == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match="no score head"):
        rw_eval.score_pairs(str(models / "base"), end_token=None)

"""Answers and scores that the quickstart shows at its end."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from dschat.data.batches import PromptBatch
from dschat.generation import EndTokens, HuggingFaceSettings, RowSeed, Sampling, build_generator
from dschat.models.causal_lm import load_causal_lm
from dschat.models.checked import check_model
from dschat.tools.tiny_model import TinyModelSize, new_model, train_tokenizer
from quickstart.answers import compare_answers, token_scores

SIZE = TinyModelSize(vocab_size=280, hidden_size=24, num_layers=1, num_heads=3, max_length=47)
ROWS = [
    ("POST\nSubreddit: r/os\nList a folder.\nTL;DR: ", " List it."),
    ("Another prompt: ", " Yes."),
]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two actors and a reward model, all unlearned."""
    root = tmp_path_factory.mktemp("models")
    tokenizer = train_tokenizer(["List a folder. Return its size.\n"] * 9, vocab_size=280, max_length=47)
    for seed, name in enumerate(("first", "second", "base")):
        tokenizer.save_pretrained(root / name)
        new_model(tokenizer, SIZE, seed=seed).save_pretrained(root / name)
    torch.manual_seed(0)
    reward = AutoModelForSequenceClassification.from_pretrained(root / "base", num_labels=1)
    reward.save_pretrained(root / "reward")
    tokenizer.save_pretrained(root / "reward")
    return {name: root / name for name in ("first", "second", "reward")}


def test_score_of_the_last_token_equals_the_models_own_pooling(folders: dict[str, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["reward"]).eval()
    ids = torch.randint(3, 280, (1, 31), generator=torch.Generator().manual_seed(0))

    scores = token_scores(model, ids)

    assert scores.shape == (31,)
    for length in (1, 17, 31):
        with torch.no_grad():
            pooled = model(ids[:, :length]).logits[0, 0]
        torch.testing.assert_close(scores[length - 1], pooled, atol=1e-5, rtol=1e-4)


def test_final_eos_is_scored_even_where_it_is_the_padding(folders: dict[str, Path]) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folders["reward"]).eval()
    model.config.pad_token_id = model.config.eos_token_id
    ids = torch.tensor([[1, 50, 60, 70, model.config.eos_token_id]])

    with torch.no_grad():
        pooled = model(ids).logits[0, 0]

    scores = token_scores(model, ids)
    torch.testing.assert_close(scores[3], pooled, atol=1e-5, rtol=1e-4)
    assert abs(scores[4] - pooled) > 1e-4


def test_every_actor_answers_every_prompt_and_is_scored(folders: dict[str, Path]) -> None:
    def compare(seed: int) -> list[dict[str, tuple[str, float]]]:
        actors = {name: folders[name] for name in ("first", "second")}
        samples = compare_answers(
            ROWS,
            actors,
            folders["reward"],
            max_prompt_tokens=20,
            max_new_tokens=9,
            temperature=0.8,
            top_k=50,
            seed=seed,
        )  # fmt: skip
        assert [(sample.prompt, sample.human) for sample in samples] == ROWS
        return [sample.answers for sample in samples]

    answers = compare(3)

    assert [list(found) for found in answers] == [["first", "second"]] * 2
    assert compare(3) == answers
    assert compare(4) != answers
    assert len({score for found in answers for _, score in found.values()}) == 4


def test_score_belongs_to_prompt_and_answer_together(folders: dict[str, Path]) -> None:
    checked = check_model("actor", str(folders["first"]))
    model = AutoModelForSequenceClassification.from_pretrained(folders["reward"]).eval()

    prompt_ids = checked.tokenizer(ROWS[1][0]).input_ids
    sampling = {"max_new_tokens": 6, "temperature": 0.8, "top_k": 50, "seed": 5}

    sample = compare_answers(
        ROWS[1:], {"first": folders["first"]}, folders["reward"], max_prompt_tokens=40, **sampling
    )[0]  # fmt: skip

    actor = load_causal_lm(checked, dtype=torch.float32).eval()
    generator = build_generator(actor, EndTokens.of(checked), HuggingFaceSettings())
    batch = PromptBatch.of_ids([prompt_ids], pad_token_id=checked.pad_token_id)
    answer = generator.generate(batch, Sampling(0.8, 50, 1.0, 6), seeds=[RowSeed(5, 0)]).ids()[0]
    text, score = sample.answers["first"]
    assert text == checked.tokenizer.decode(answer, skip_special_tokens=True) and answer
    assert score == pytest.approx(float(token_scores(model, torch.tensor([prompt_ids + answer]))[-1]), abs=1e-5)

"""Answers of several actors to the same held-out prompts, with the reward model's scores; plain transformers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from quickstart.report import SampleAnswer


def held_out_rows(data_path: str, *, cache_dir: Path, seed: int, count: int) -> list[tuple[str, str]]:
    """Prompt and preferred answer of `count` rows spread evenly over the held-out part of a dataset.

    Args:
        data_path: the dataset's name.
        cache_dir: where the training programs built it.
        seed: theirs too.
        count: fewer come back where the dataset has fewer.
    """
    from dschat.data.raw_datasets import find_raw_dataset

    dataset = find_raw_dataset(data_path, seed=seed, cache_dir=cache_dir)
    rows = dataset.load("sft").evaluation
    chosen = [rows[index * len(rows) // count] for index in range(min(count, len(rows)))]
    pairs = [(dataset.prompt(row), dataset.chosen(row)) for row in chosen]
    return [(prompt, answer) for prompt, answer in pairs if prompt is not None and answer is not None]


@torch.no_grad()
def token_scores(model: PreTrainedModel, input_ids: Tensor) -> Tensor:
    """The reward of every prefix of a sequence: [1, T] token ids → [T] scores.

    The model's own pooling takes the last token that is not padding, which skips a final EOS where EOS is the padding.
    """
    hidden = model.base_model(input_ids).last_hidden_state
    return model.score(hidden)[0, :, 0].float()


@torch.no_grad()
def sample_answer(
    model: PreTrainedModel, prompt_ids: Tensor, tokenizer: PreTrainedTokenizerBase, *, max_new_tokens: int,
    temperature: float, top_k: int, seed: int,
) -> Tensor:  # fmt: skip
    """Sample one answer: [1, P] prompt ids → [1, P + R] ids of prompt and answer, EOS included where one was drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return model.generate(
            input_ids=prompt_ids,
            attention_mask=torch.ones_like(prompt_ids),
            max_new_tokens=max_new_tokens,
            do_sample=True,
            temperature=temperature,
            top_k=top_k,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )


def compare_answers(
    rows: Sequence[tuple[str, str]],
    actors: Mapping[str, Path],
    reward_folder: Path,
    *,
    max_prompt_tokens: int,
    max_new_tokens: int,
    temperature: float,
    top_k: int,
    seed: int,
) -> list[SampleAnswer]:
    """One answer per prompt and actor, scored at its last token.

    Args:
        rows: prompts with their preferred answers.
        actors: model folders by the name to show, in the order to show.
        reward_folder: the folder that step 2 wrote.
        max_prompt_tokens: longer prompts lose their beginning, as in training.
        max_new_tokens: longest answer.
        temperature: of the sampling.
        top_k: sample among this many most likely tokens.
        seed: of the sampling; every actor draws with the same random numbers.
    """
    tokenizer = AutoTokenizer.from_pretrained(next(iter(actors.values())))
    reward_model = AutoModelForSequenceClassification.from_pretrained(reward_folder, dtype=torch.float32).eval()
    answers: list[dict[str, tuple[str, float]]] = [{} for _ in rows]
    for name, folder in actors.items():
        actor = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        for index, (prompt, _) in enumerate(rows):
            prompt_ids = tokenizer(prompt, return_tensors="pt").input_ids[:, -max_prompt_tokens:]
            sequence = sample_answer(
                actor, prompt_ids, tokenizer, max_new_tokens=max_new_tokens, temperature=temperature, top_k=top_k,
                seed=seed + index,
            )  # fmt: skip
            text = tokenizer.decode(sequence[0, prompt_ids.shape[1] :], skip_special_tokens=True)
            answers[index][name] = (text, float(token_scores(reward_model, sequence)[-1]))
    return [
        SampleAnswer(prompt=prompt, human=human, answers=found)
        for (prompt, human), found in zip(rows, answers, strict=True)
    ]

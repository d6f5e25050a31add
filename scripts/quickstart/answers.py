"""Answers of several actors to the same held-out prompts, with the reward model's scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel

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
    from dschat.data.stages import SFT

    dataset = find_raw_dataset(data_path, seed=seed, cache_dir=cache_dir)
    rows = dataset.load(SFT.texts).evaluation
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
    from dschat.data.batches import PromptBatch
    from dschat.generation import EndTokens, HuggingFaceSettings, RowSeed, Sampling, build_generator
    from dschat.models.causal_lm import load_causal_lm
    from dschat.models.checked import check_model

    sampling = Sampling(temperature, top_k, 1.0, max_new_tokens)
    reward_model = AutoModelForSequenceClassification.from_pretrained(reward_folder, dtype=torch.float32).eval()
    answers: list[dict[str, tuple[str, float]]] = [{} for _ in rows]
    for name, folder in actors.items():
        checked = check_model("actor", str(folder))
        actor = load_causal_lm(checked, dtype=torch.float32).eval()
        generator = build_generator(actor, EndTokens.of(checked), HuggingFaceSettings())
        for index, (prompt, _) in enumerate(rows):
            ids = checked.tokenizer(prompt)["input_ids"][-max_prompt_tokens:]
            batch = PromptBatch.of_ids([ids], pad_token_id=checked.pad_token_id)
            answer = generator.generate(batch, sampling, seeds=[RowSeed(seed, index)]).ids()[0]
            text = checked.tokenizer.decode(answer, skip_special_tokens=True)
            answers[index][name] = (text, float(token_scores(reward_model, torch.tensor([ids + answer]))[-1]))
    return [
        SampleAnswer(prompt=prompt, human=human, answers=found)
        for (prompt, human), found in zip(rows, answers, strict=True)
    ]

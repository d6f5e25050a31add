"""The end of the quickstart: many answers of every model, a judge, and the page that shows them."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from quickstart.options import ROOT

INFERENCE = ROOT / "inference" / "inference_with_rewards.py"
JUDGE = ROOT / "evaluation" / "gpt4-eval.py"
REPORT = ROOT / "evaluation" / "report.py"
PAIRS_TO_JUDGE = 50


def inference_words(
    name: str, model: Path, out: Path, *, dataset: str, samples: int, sampling: Mapping[str, object]
) -> list[str]:
    """The command that answers held-out prompts with one model and scores the answers.

    Args:
        name: of the model, and so of the result file.
        model: its folder; a run of step 3 has its actor below it.
        out: the quickstart's folder.
        dataset: whose held-out prompts.
        samples: number of prompts.
        sampling: further flags by name.
    """
    words = [
        sys.executable, str(INFERENCE), "--proj-path", str(out), "--dataset", dataset, "--model", str(model),
        "--reward-model", str(out / "reward"), "--data-output-path", str(out / "data_cache"),
        "--num-samples", str(samples), "--batch-size", "16", "--output", str(answers_file(out, name)),
    ]  # fmt: skip
    if not (model / "actor").exists():
        words.append("--no-actor-folder")
    for flag, value in sampling.items():
        words += [f"--{flag}", str(value)]
    return words


def judge_words(first: str, second: str, out: Path, *, dataset: str) -> list[str]:
    """The command that compares two models: with a language model where a key is set, else with the reward model."""
    judge = "openai" if os.environ.get("OPENAI_API_KEY") else "reward-model"
    return [
        sys.executable, str(JUDGE), "--model_name_a", str(answers_file(out, first)),
        "--model_name_b", str(answers_file(out, second)), "--dataset", dataset, "--judge", judge,
        "--num_sample", str(PAIRS_TO_JUDGE), "--output", str(verdicts_file(out, first, second)),
    ]  # fmt: skip


def report_words(names: list[str], out: Path) -> list[str]:
    """The command that draws the page from all answers and verdicts."""
    files = [answers_file(out, name) for name in names]
    files += [verdicts_file(out, first, second) for first, second in combinations(names, 2)]
    return [
        sys.executable, str(REPORT), "--title", "Quickstart", "--output", str(out / "report.html"), *map(str, files)
    ]  # fmt: skip


def chain(models: Mapping[str, Path], out: Path, *, dataset: str, samples: int, sampling: Mapping[str, object]) -> (
    list[tuple[str, list[str]]]
):  # fmt: skip
    """All commands in order, each with the title of its log.

    Args:
        models: folder of each model by name; later ones are compared with earlier ones.
        out: the quickstart's folder.
        dataset: whose held-out prompts.
        samples: prompts per model.
        sampling: flags of the inference.
    """
    names = list(models)
    commands = [
        (
            f"answers-{name}",
            inference_words(name, models[name], out, dataset=dataset, samples=samples, sampling=sampling),
        )
        for name in names
    ]
    commands += [
        (f"judge-{second}-{first}", judge_words(second, first, out, dataset=dataset))
        for first, second in combinations(names, 2)
    ]
    return [*commands, ("report", report_words(names, out))]


def answers_file(out: Path, name: str) -> Path:
    """Result file of one model."""
    return out / "answers" / f"{name}.jsonl"


def verdicts_file(out: Path, first: str, second: str) -> Path:
    """Verdicts on two models, whichever is named first."""
    a, b = sorted((first, second))
    return out / "verdicts" / f"{a}-vs-{b}.jsonl"

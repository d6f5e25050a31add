"""Toy models and data on disk, and the inference program as a user starts it."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from dschat.models.checked import check_model
from dschat.models.reward_model import load_token_scorer
from dschat.runtime.model_folders import save_model
from tests.code_execution.graded_programs import Case
from tests.judging.helpers import ROOT
from toys.jobs import WORDS
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

PROGRAM = ROOT / "inference" / "inference_with_rewards.py"


def make_models(folder: Path, *, pad: str = "pad", reward_positions: int = 128) -> None:
    """`run/step-7/actor` and `reward/step_3` below a folder; the policy has rows beyond its tokenizer."""
    tokenizer = make_tokenizer(pad=pad)
    size = len(tokenizer) + 5
    save_model(make_causal_lm("llama", vocab_size=size), tokenizer, folder / "run" / "step-7" / "actor")
    save_model(make_causal_lm("gemma", vocab_size=size, seed=1, positions=reward_positions), tokenizer, folder / "base")
    torch.manual_seed(0)
    scorer = load_token_scorer(check_model("base", str(folder / "base")), fresh_head=True, dtype=torch.float32)
    with torch.no_grad():
        scorer.model.score.weight.normal_(std=0.2)
    save_model(scorer.model, tokenizer, folder / "reward" / "step_3")


def write_posts(folder: Path, *, rows: int = 24) -> Path:
    """Local data in the columns of TL;DR: posts of very different lengths, an article, posts without a subreddit."""
    draw = random.Random(3)
    folder.mkdir(parents=True)
    for split, count in (("train", 2), ("validation", rows)):
        with (folder / f"{split}.jsonl").open("w") as file:
            for row in range(count):
                post = f"{row} " + " ".join(draw.choices(WORDS, k=draw.choice([2, 5, 9, 60])))
                info = {"id": str(row), "post": post, "article": None, "subreddit": ["pets", "cars", None][row % 3]}
                if row == 1 and split == "validation":
                    info |= {"post": None, "article": "news", "subreddit": None}
                summaries = [{"text": " " + " ".join(draw.choices(WORDS, k=size))} for size in (3, 4)]
                file.write(json.dumps({"info": info, "summaries": summaries, "choice": row % 2}) + "\n")
    return folder


def words(folder: Path, *more: object) -> list[object]:
    """The published command on the toy models, in fp32."""
    return [
        "--proj-path", folder / "proj", "--dataset", "summarize", "--data-path", folder / "posts",
        "--model", f"{folder}/run/step-7/", "--reward-model", folder / "reward" / "step_3", "--temperature", "0.8",
        "--gpu", "0", "--device", "cpu", "--max-new-tokens", 12, "--max-prompt-length", 60, *more,
    ]  # fmt: skip


def default_output(folder: Path) -> Path:
    """Where the command writes."""
    return folder / "proj" / "results" / "summarize" / "temperature=0.8" / "run_step-7.jsonl"


APPS_PROGRAM = ROOT / "inference" / "inference_apps.py"


def apps_words(folder: Path, *more: object) -> list[object]:
    """The published command for programming problems, on a toy model and the built-in problems."""
    return [
        "--proj-path", folder / "proj", "--dataset", "tiny-apps", "--model", f"{folder}/run/step-7/",
        "--temperature", "1.0", "--gpu", "0", "--device", "cpu", "--num-samples", 9, "--max-new-tokens", 12,
        "--max-prompt-length", 60, "--data-output-path", folder / "cache", "--grading-workers", 1, *more,
    ]  # fmt: skip


def apps_output(folder: Path) -> Path:
    """Where that command writes."""
    return folder / "proj" / "results" / "tiny-apps" / "temperature=1" / "run_step-7_9.jsonl"


def write_problems(folder: Path, cases: Sequence[Case]) -> Path:
    """Programs as the solutions of problems of their own, in the columns of APPS."""
    folder.mkdir(parents=True)
    rows = [
        {
            "problem_id": 100 + number, "question": f"{number}. {case.name}", "solutions": json.dumps([case.program]),
            "input_output": json.dumps(case.tests), "difficulty": "interview" if number % 2 else "introductory",
            "url": "", "starter_code": "",
        }
        for number, case in enumerate(cases)
    ]  # fmt: skip
    for split in ("train", "test"):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder

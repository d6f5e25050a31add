"""The published commands under the real launcher, on two ranks, with toy models and data in place of the real ones."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from dschat.data.tiny_apps import all_problems, build_rows
from tests.config import commands
from tests.launch import REPOSITORY, launch
from toys.jobs import WORDS, read_metrics
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

TRAINING = REPOSITORY / "applications/DeepSpeed-Chat/training"
STEP3 = TRAINING / "step3_rlhf_finetuning"
DATASETS = ("openai/summarize_from_feedback", "codeparrot/apps")
PATHS = {
    "google/gemma-2b": "gemma",
    **{name: name for name in DATASETS},
    "../../models/summarize/sft": "sft",
    "../../models/summarize/reward_model/step_581": "reward_model/step_581",
    "../../models/summarize/reward_model": "reward_model",
    "../../models/summarize/ppo": "ppo",
    "../../models/summarize/wpr": "wpr",
    "../../models/apps/sft": "apps_sft",
    "../../models/apps/ppo": "apps",
    "../../models/apps/wpr": "wpr_apps",
}


def words(command: list[str], folder: Path, extra: str = "") -> list[str]:
    """A published command with the user's paths; every other word stays."""
    return [str(folder / PATHS[word]) if word in PATHS else word for word in command] + extra.split()


def write_tldr(folder: Path, rows: int) -> None:
    """A folder with the hub's columns and splits."""
    chooser = random.Random(0)

    def text(low: int, high: int) -> str:
        return " ".join(chooser.choices(WORDS, k=chooser.randint(low, high)))

    for split, count in (("train", rows), ("validation", rows // 4)):
        table = [
            {
                "info": {"id": str(i), "post": text(5, 40), "title": text(1, 3), "subreddit": "cats", "article": None},
                "summaries": [{"text": " " + text(2, 8)}, {"text": " " + text(2, 8)}],
                "choice": chooser.randrange(2),
            }
            for i in range(count)
        ]
        folder.mkdir(parents=True, exist_ok=True)
        Dataset.from_list(table).to_parquet(str(folder / f"{split}-00000-of-00001.parquet"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 1 and 2, as published, from a toy Gemma."""
    folder = tmp_path_factory.mktemp("published")
    tokenizer = make_tokenizer()
    make_causal_lm("gemma", vocab_size=len(tokenizer), positions=1024).save_pretrained(folder / "gemma")
    tokenizer.save_pretrained(folder / "gemma")
    write_tldr(folder / "openai/summarize_from_feedback", rows=480)
    for command, step in (
        (commands.SFT, "step1_supervised_finetuning"),
        (commands.REWARD, "step2_reward_model_finetuning"),
    ):
        finished = launch(TRAINING / step / "main.py", *words(command, folder))
        assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    steps = sorted((folder / "reward_model").glob("step_*"))
    assert len(steps) == 1
    # the number depends on the data; the published one is TL;DR's
    steps[0].rename(folder / "reward_model/step_581")
    return folder


def test_steps_1_and_2_leave_folders_that_load_with_the_plain_library(folder: Path) -> None:
    assert AutoModelForCausalLM.from_pretrained(folder / "sft").config.model_type == "gemma"
    assert len(AutoTokenizer.from_pretrained(folder / "sft")) == len(make_tokenizer())
    assert AutoModelForSequenceClassification.from_pretrained(folder / "reward_model/step_581").config.num_labels == 1
    losses = [line["eval_loss"] for line in read_metrics(folder / "sft") if "eval_loss" in line]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("program", "command", "output"),
    [("main.py", commands.PPO, "ppo"), ("main_wpr.py", commands.WASSERSTEIN, "wpr")],
)
def test_step_3_trains_and_saves(program: str, command: list[str], output: str, folder: Path) -> None:
    finished = launch(STEP3 / program, *words(command, folder, "--max_steps 2"))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    lines = read_metrics(folder / output)
    assert [line["step"] for line in lines] == [1, 2]
    assert all(line["actor_loss"] is not None for line in lines)
    # 8 prompts per rank, 4 rollout batches, 2 ranks
    assert "a PPO step samples 64 answers on 2 device(s)" in finished.stdout
    assert AutoModelForCausalLM.from_pretrained(folder / output / "step-2/actor").config.model_type == "gemma"
    critic = AutoModelForSequenceClassification.from_pretrained(folder / output / "critic")
    assert critic.config.num_labels == 1
    assert ("wasserstein_potential" in lines[0]) == (program == "main_wpr.py")


@pytest.mark.parametrize(
    ("program", "command", "output"),
    [("main_apps.py", commands.APPS, "apps"), ("main_wpr_apps.py", commands.WASSERSTEIN_APPS, "wpr_apps")],
)
def test_step_3_learns_from_unit_tests(program: str, command: list[str], output: str, folder: Path) -> None:
    for name, rows in build_rows(all_problems(), seed=0).items():
        (folder / "codeparrot/apps").mkdir(parents=True, exist_ok=True)
        Dataset.from_list(rows).to_parquet(str(folder / f"codeparrot/apps/{name}-00000-of-00001.parquet"))
    sft = folder / "apps_sft"
    if not sft.exists():
        sft.symlink_to("gemma")
    finished = launch(STEP3 / program, *words(command, folder, "--max_steps 1 --max_answer_seq_len 16"))
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-3000:]
    [line] = read_metrics(folder / output)
    # an untrained model writes nothing that runs
    assert -1.0 <= line["reward"] < -0.3
    assert line["ungraded_share"] == 0.0
    assert line["test_compile_error_share"] > 0.5
    assert f"the critic starts from {sft} with a new score head" in finished.stdout
    critic = AutoModelForSequenceClassification.from_pretrained(folder / output / "critic")
    assert critic.config.num_labels == 1

"""Whole training runs on toy models, as the entry points start them, several in one process."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.rewards import LearnedRewardConfig, UnitTestRewardConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from dschat.data.batches import PromptBatch
from dschat.rlhf.constituency import ConstituencyParser
from dschat.rlhf.reward_sources import RewardSource
from dschat.runtime.distributed import rank, world_size
from dschat.runtime.model_folders import save_model
from toys.generators import FixedAnswers
from toys.models import make_causal_lm
from toys.tokenizers import make_tokenizer

WORDS = "red blue green old new small big cat dog bird tree house runs eats sees likes the a and".split()
ANSWER_TOKENS = 5


@dataclass(frozen=True)
class Job:
    """One run: a step and its command line."""

    step: str
    """sft, reward, ppo or wpr; apps or wpr_apps for rewards from unit tests."""
    arguments: list[str]
    fixed_answers: bool = False
    """PPO: answers are a function of the prompt, so that runs with other ranks or batches can be compared."""
    second_half_silent: bool = False
    """With fixed answers: the second half of every global batch says nothing, which may be all that a rank has."""


def run_job(
    job: Job, *, reward_source: RewardSource | None = None, parser: ConstituencyParser | None = None
) -> list[dict[str, Any]]:
    """Run a job on this rank and return the lines of its metrics.jsonl."""
    # imported here: DeepSpeed takes seconds, and not every test needs it
    from dschat.offline.reward import run_reward_training
    from dschat.offline.sft import run_sft
    from dschat.rlhf.run_ppo import run_ppo

    match job.step:
        case "sft":
            config = parse_sft_config(job.arguments)
            run_sft(config)
        case "reward":
            config = parse_reward_config(job.arguments)
            run_reward_training(config)
        case _:
            section = WassersteinConfig if job.step.startswith("wpr") else DivergenceConfig
            reward = UnitTestRewardConfig if job.step.endswith("apps") else LearnedRewardConfig
            config = parse_ppo_config(job.arguments, regularizer=section, reward=reward)
            answer = answer_first_half if job.second_half_silent else answer_by_prompt if job.fixed_answers else None
            generator = FixedAnswers(answer) if answer else None
            run_ppo(config, reward_source=reward_source, generator=generator, parser=parser)
    return read_metrics(Path(str(config.output.output_dir)))


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Metrics lines without the times and rates, which differ between any two runs."""
    return [
        {name: value for name, value in line.items() if not name.endswith(("seconds", "per_second"))} for line in lines
    ]


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl."""
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def answer_by_prompt(prompts: PromptBatch) -> Tensor:
    """Answers [B, R] of fixed width that depend on each row's own tokens of prompts [B, P] alone."""
    rows = []
    for ids, mask in zip(prompts.input_ids, prompts.attention_mask, strict=True):
        seed = int(ids[mask.bool()].sum())
        generator = torch.Generator().manual_seed(seed)
        row = torch.randint(5, 40, (ANSWER_TOKENS,), generator=generator)
        row[seed % ANSWER_TOKENS :] = make_tokenizer().eos_token_id  # at once in every fifth answer
        rows.append(row)
    return torch.stack(rows).to(prompts.input_ids.device)


def answer_first_half(prompts: PromptBatch) -> Tensor:
    """The same, [B, R], but the second half of the rows of all ranks together ends at once."""
    answers = answer_by_prompt(prompts)
    rows = answers.shape[0]
    silent = rank() * rows + torch.arange(rows) >= world_size() * rows // 2
    answers[silent] = make_tokenizer().eos_token_id
    return answers


def write_pairs(path: Path, *, rows: int = 160, seed: int = 0) -> Path:
    """A jsonl file of prompts with a chosen and a rejected answer."""
    random_words = random.Random(seed)
    with path.open("w") as file:
        for _ in range(rows):
            prompt = " ".join(random_words.choices(WORDS, k=random_words.randint(3, 9)))
            chosen, rejected = (" ".join(random_words.choices(WORDS, k=random_words.randint(1, 6))) for _ in range(2))
            file.write(json.dumps({"prompt": prompt, "chosen": chosen, "rejected": rejected}) + "\n")
    return path


def write_problems(path: Path, *, rows: int = 40) -> Path:
    """A jsonl file of short programming problems in the columns of APPS: print a number, each another one."""
    with path.open("w") as file:
        for number in range(rows):
            tests = {"inputs": ["", "\n"], "outputs": [f"{number}\n"] * 2}
            row = {
                "problem_id": number, "question": f"Print {number}.", "solutions": json.dumps([f"print({number})"]),
                "input_output": json.dumps(tests), "difficulty": "introductory", "url": "", "starter_code": "",
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return path


def write_text(folder: Path, *, paragraphs: int = 300, seed: int = 0) -> Path:
    """A file text.txt of paragraphs made of the same words."""
    random_words = random.Random(seed)
    path = folder / "text.txt"
    path.write_text("\n\n".join(" ".join(random_words.choices(WORDS, k=30)) for _ in range(paragraphs)))
    return path


def make_folders(folder: Path, *, family: str = "llama", pad: Literal["pad", "eos"] = "pad") -> dict[str, str]:
    """Data, a language model and a reward model on disk; returns their paths."""
    from dschat.models.checked import check_model
    from dschat.models.reward_model import load_token_scorer

    tokenizer = make_tokenizer(pad=pad)
    save_model(make_causal_lm(family, vocab_size=len(tokenizer)), tokenizer, folder / "sft")
    torch.manual_seed(0)
    scorer = load_token_scorer(check_model("sft", str(folder / "sft")), fresh_head=True, dtype=torch.float32)
    with torch.no_grad():
        scorer.model.score.weight.normal_(std=0.2)
    save_model(scorer.model, tokenizer, folder / "reward")
    data = write_pairs(folder / "pairs.jsonl")
    return {"data": str(data), "sft": str(folder / "sft"), "reward": str(folder / "reward")}


def supervised_arguments(paths: dict[str, str], model: str, output: Path, extra: str = "") -> list[str]:
    """Command line of step 1 or 2 on toy models; `extra` is appended and so wins."""
    common = (
        f"--data_path {paths['data']} --data_format local/jsonfile --model_name_or_path {paths[model]} "
        f"--output_dir {output} --dtype fp32 --max_seq_len 64 --learning_rate 1e-2 --max_steps 5 --num_train_epochs 2 "
        f"--per_device_train_batch_size 8 --per_device_eval_batch_size 8 {extra}"
    )
    return common.split()


def ppo_arguments(paths: dict[str, str], output: Path, extra: str = "") -> list[str]:
    """Command line of step 3 on toy models; `extra` is appended and so wins."""
    common = (
        f"--data_path {paths['data']} --data_format local/jsonfile --actor_model_name_or_path {paths['sft']} "
        f"--critic_model_name_or_path {paths['reward']} --output_dir {output} --dtype fp32 --max_prompt_seq_len 48 "
        "--max_answer_seq_len 8 --actor_learning_rate 1e-3 --critic_learning_rate 1e-3 --max_steps 5 "
        "--num_train_epochs 2 --save_steps 0 "
        f"--per_device_generation_batch_size 8 --per_device_training_batch_size 8 {extra}"
    )
    return common.split()

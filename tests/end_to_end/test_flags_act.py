"""Every flag of the published step-3 programs changes what a run does: its numbers, its files, or how it computes."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat import engines, preparation
from dschat.config.regularizers import WassersteinConfig
from dschat.config.retired import RETIRED_FLAGS
from dschat.data import plain_text
from dschat.generation import hugging_face
from dschat.optimal_transport import TokenGeometry
from dschat.rlhf import ppo_loop
from dschat.rlhf.constituency import Constituent
from tests.config import test_published_flags as published
from tests.rlhf.test_macro_training import HalvesParser
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times, write_pairs, write_text

# Each flag with another value than in the short run below, and what it needs beside it.
SHARED = """
--data_path {other_data}
--data_split 1,1,8
--data_output_path {where}/elsewhere
--unsupervised_dataset_name {text}
--unsupervised_dataset_config_name two --unsupervised_dataset_name {configs} --unsupervised_dataset_config_name one
--unsup_coef 3.5 --unsupervised_dataset_name {text}
--actor_model_name_or_path {other_sft}
--critic_model_name_or_path {other_reward}
--per_device_generation_batch_size 8
--per_device_training_batch_size 2
--generation_batches 2
--ppo_epochs 2
--max_prompt_seq_len 30
--max_answer_seq_len 3
--actor_learning_rate 1e-4
--critic_learning_rate 1e-4
--actor_weight_decay 0.5
--critic_weight_decay 0.5
--num_train_epochs 3 --max_steps 0 --data_split 49,49,2
--lr_scheduler_type constant
--gradient_accumulation_steps 2
--num_warmup_steps 2
--warmup_ratio 0.9
--output_dir {where}/elsewhere
--seed 7
--preprocessing_num_workers 2 --unsupervised_dataset_name {text}
--local_rank 0
--offload --actor_zero_stage 2
--offload_reference_model
--dtype bf16
--actor_zero_stage 2
--critic_zero_stage 3
--actor_gradient_checkpointing
--critic_gradient_checkpointing
--actor_dropout 0.5
--critic_dropout 0.5
--actor_lora_dim 2
--critic_lora_dim 2
--actor_lora_module_name q_proj --actor_lora_dim 2
--critic_lora_module_name q_proj --critic_lora_dim 2
--only_optimize_lora --actor_lora_dim 2
--actor_lora_learning_rate 1e-3 --actor_lora_dim 2
--critic_lora_learning_rate 1e-3 --critic_lora_dim 2
--enable_ema
--enable_tensorboard
--tensorboard_path {where}/elsewhere --enable_tensorboard
--print_answers --max_steps 10
--print_answers_interval 1 --print_answers
--test_stop_step 1
--save_steps 1
--end_of_conversation_token a
--kl_ctl 5
--gamma 0.5
--lam 0.5
--temperature 2.0
--enable_zero3_generation_gather false --actor_zero_stage 3
--termination_condition ppl
--ngram 2
--repeat_times 1 --termination_condition randomized --repeat_times 2
--parser_cutoff 9 --termination_condition parsing --parser_cutoff 4
--value_function position --ngram 2
--f_div js
--f_div_alpha 0.1 --f_div alpha
--f_div_low_var
"""
WASSERSTEIN = """
--block_size 512
--cost_dim 4
--cost_type cos
--epsilon 0.5
--max_iter 1
--tol 10
--top_k 4
--normalize
--gaussian_perturb 0.5
"""
SHORT = (
    "--max_steps 2 --per_device_generation_batch_size 4 --per_device_training_batch_size 4 --max_answer_seq_len 5 "
    "--save_only_model --kl_ctl 1"
)
Behaviour = dict[str, Any]


class SentenceParser(HalvesParser):
    """One sentence of two phrases."""

    def parse(self, texts: Sequence[str]) -> list[tuple[Constituent, ...] | None]:
        return [halves and (Constituent(halves[0].start, halves),) for halves in super().parse(texts)]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    """Models, data and text, each twice."""
    folder, other = (tmp_path_factory.mktemp(name) for name in ("first", "second"))
    first, second = make_folders(folder), make_folders(other, family="qwen2")
    for name, seed in (("one", 1), ("two", 2)):
        (folder / "configs" / name).mkdir(parents=True)
        rows = write_text(other, seed=seed).read_text().split("\n\n")
        lines = (json.dumps({"text": row}) for row in rows)
        (folder / "configs" / name / "train.jsonl").write_text("\n".join(lines))
    return first | {
        "other_data": str(write_pairs(other / "pairs.jsonl", seed=5)), "other_sft": second["sft"],
        "other_reward": second["reward"], "text": str(write_text(folder)), "configs": str(folder / "configs"),
    }  # fmt: skip


def watch(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, seen: list[Any], note: Callable[..., Any]) -> None:
    """Have `note(result, *args, **kwargs)` appended to `seen` whenever owner.name is called."""
    original = getattr(owner, name)

    def called(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        seen.append((name, note(result, *args, **kwargs)))
        return result

    monkeypatch.setattr(owner, name, called)


def behaviour(program: str, words: list[str], paths: dict[str, str], where: Path) -> Behaviour:
    """What a short run does: its metrics, its files below `where`, and with what settings it computes."""
    step = "wpr" if published.PROGRAMS[program] is WassersteinConfig else "ppo"
    transport = "--top_k 8 --cost_dim 16 --max_iter 5" if step == "wpr" else ""
    # a cache that all runs share, but where the flag is about what is cached
    cache = where / "cache" if "--preprocessing_num_workers" in words else f"{paths['sft']}/../cache"
    arguments = ppo_arguments(paths, where / "out", f"{SHORT} {transport} --data_output_path {cache}")
    computed: list[Any] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("training_settings", "inference_settings"):
            watch(patch, engines, name, computed, lambda result, *_, **__: result)
        watch(patch, engines, "enable_gradient_checkpointing", computed, lambda _, model: type(model).__name__)
        watch(patch, hugging_face, "whole_weights", computed, lambda *_, gather: gather)
        watch(patch, ppo_loop, "show_table", computed, lambda _, title, *__: title)
        watch(patch, TokenGeometry, "from_embeddings", computed, lambda *_, block_size, **__: block_size)
        watch(patch, preparation, "follow_launcher", computed, lambda *_: True)
        watch(patch, plain_text, "_tokenised", computed, lambda _, rows, tokenizer, num_workers: num_workers)
        lines = run_job(Job(step, arguments + words), parser=SentenceParser())
    files = sorted(str(file.relative_to(where)) for file in where.rglob("*"))
    return {
        "metrics": without_times(lines),
        "files": [file.rpartition(".out.tfevents")[0] or file for file in files],  # those have the time in their names
        "computed": computed,
    }


@pytest.fixture(scope="module")
def without(
    paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, tuple[str, ...]], Behaviour]:
    """The behaviour of a program with the companions of a flag alone, run once for all flags that share them."""
    runs: dict[tuple[str, tuple[str, ...]], Behaviour] = {}

    def run(program: str, companions: tuple[str, ...]) -> Behaviour:
        key = (program, companions)
        if key not in runs:
            runs[key] = behaviour(program, list(companions), paths, tmp_path_factory.mktemp("without"))
        return runs[key]

    return run


def cases() -> list[tuple[str, str]]:
    of_programs = {"main.py": SHARED, "main_wpr.py": WASSERSTEIN}
    return [(program, line) for program, table in of_programs.items() for line in published.lines(table)]


@pytest.mark.parametrize(("program", "line"), cases(), ids=lambda value: value.split()[0].removeprefix("--"))
def test_a_flag_changes_what_a_run_does(
    program: str,
    line: str,
    paths: dict[str, str],
    without: Callable[[str, tuple[str, ...]], Behaviour],
    tmp_path: Path,
) -> None:
    words = line.split()
    end = next((i for i, word in enumerate(words) if i and word.startswith("--")), len(words))
    flag, companions = ([word.format(**paths, where=tmp_path) for word in part] for part in (words[:end], words[end:]))
    assert behaviour(program, [*companions, *flag], paths, tmp_path) != without(program, tuple(companions))


def test_the_same_run_twice_does_the_same(
    paths: dict[str, str], without: Callable[[str, tuple[str, ...]], Behaviour], tmp_path: Path
) -> None:
    for program in published.PROGRAMS:
        assert behaviour(program, [], paths, tmp_path / program) == without(program, ())


def test_no_published_flag_is_missing() -> None:
    ours, theirs = (
        {line.split()[0].removeprefix("--") for table in tables for line in published.lines(table)}
        for tables in ((SHARED, WASSERSTEIN), (published.SHARED, published.WASSERSTEIN))
    )
    assert ours == theirs - RETIRED_FLAGS.keys()

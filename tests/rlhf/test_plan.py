"""What step 3 needs before weights are read."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoTokenizer

from toys.jobs import Job, make_folders, ppo_arguments, run_job, write_problems


def counted(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, str]]:
    """How often a config and a tokenizer were read, by kind and path, from here on."""
    reads: Counter[tuple[str, str]] = Counter()
    for kind in (AutoConfig, AutoTokenizer):
        original = kind.from_pretrained

        def read(path: Any, *args: Any, kind: type = kind, original: Any = original, **options: Any) -> Any:
            reads[kind.__name__, str(path)] += 1
            return original(path, *args, **options)

        monkeypatch.setattr(kind, "from_pretrained", read)
    return reads


@pytest.mark.parametrize("dry_run", [False, True], ids=["run", "dry run"])
def test_step_3_reads_each_checkpoint_once(
    dry_run: bool, tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_folders(tmp_path)
    reads = counted(monkeypatch)
    extra = "--max_steps 1 --enable_ema" + " --dry_run" * dry_run
    arguments = ppo_arguments(paths, tmp_path / "out", extra)
    if dry_run:
        from dschat.config.regularizers import DivergenceConfig
        from dschat.config.steps import parse_ppo_config
        from dschat.rlhf.run_ppo import run_ppo

        run_ppo(parse_ppo_config(arguments, regularizer=DivergenceConfig))
    else:
        run_job(Job("ppo", arguments))
    expected = {(kind, paths[name]): 1 for kind in ("AutoConfig", "AutoTokenizer") for name in ("sft", "reward")}
    assert {key: count for key, count in reads.items() if "out" not in key[1]} == expected


def test_a_critic_that_starts_from_the_actors_folder_is_not_looked_at_again(
    tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = make_folders(tmp_path) | {"data": str(write_problems(tmp_path / "problems.jsonl"))}
    reads = counted(monkeypatch)
    extra = "--max_steps 1 --data_format codeparrot/apps --apps_prompt published --grading_workers 1"
    arguments = ppo_arguments(paths, tmp_path / "out", extra)
    named = arguments.index("--critic_model_name_or_path")
    del arguments[named : named + 2]
    run_job(Job("apps", arguments, fixed_answers=True))
    assert reads == {("AutoConfig", paths["sft"]): 1, ("AutoTokenizer", paths["sft"]): 1}

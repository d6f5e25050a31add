"""The benchmarks' prompts are the batches that step 3 trains on."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import parse_ppo_config
from dschat.data.batches import PromptBatch
from dschat.errors import UserError
from dschat.rlhf.run_ppo import run_ppo
from quickstart_prompts import check_quickstart, quickstart_batches
from toys.generators import FixedAnswers
from toys.jobs import answer_by_prompt, make_folders, ppo_arguments


def test_batches_are_those_of_a_run_of_step_3(tmp_path: Path, process_group: torch.device) -> None:
    paths = make_folders(tmp_path)
    arguments = ppo_arguments(paths, tmp_path / "run", "--num_train_epochs 1 --max_steps 0 --save_only_model")
    config = parse_ppo_config(arguments, regularizer=DivergenceConfig)
    seen: list[PromptBatch] = []

    def sample(prompts: PromptBatch) -> torch.Tensor:
        seen.append(prompts)
        return answer_by_prompt(prompts)

    run_ppo(config, generator=FixedAnswers(sample))
    assert len(seen) > 2
    batches = list(islice(quickstart_batches(tmp_path, config), len(seen)))
    # the last batch of the epoch is filled up with its first rows in both
    for ours, theirs in zip(batches, seen, strict=True):
        assert torch.equal(ours.input_ids, theirs.input_ids)
        assert torch.equal(ours.attention_mask, theirs.attention_mask)
        assert ours.records == theirs.records


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no sft/ and reward/ in it; pass a folder that"):
        check_quickstart(tmp_path)

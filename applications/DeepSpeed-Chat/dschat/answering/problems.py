"""The held-out programming problems that inference answers: the same ones, in the same order, for every model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dschat.answering.apps_options import AppsOptions
from dschat.answering.dataset_names import CODE_DATASETS
from dschat.answering.prompts import SHUFFLE_SEED, PromptRow, find_dataset
from dschat.data.apps import Apps
from dschat.data.stages import PPO
from dschat.errors import UserError

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem(PromptRow):
    """One row of the evaluation split; `chosen` is its first solution."""

    identity: str
    """The dataset's number of the problem, else its place in the evaluation split."""
    difficulty: str
    """"" where the dataset does not say."""
    tests: Mapping[str, Any]
    """Inputs, expected outputs and, where a function is called, its name."""


def load_problems(options: AppsOptions) -> list[Problem]:
    """The first `--num-samples` problems of the shuffled evaluation split.

    The file as published is in the order of difficulty, hence the shuffling. A prompt that several rows share is
    answered once.

    Raises:
        UserError: the data is missing or malformed, is not of programming problems, or no row is usable.
    """
    dataset = find_dataset(options, apps_prompt=options.apps_prompt)
    if not isinstance(dataset, Apps):
        raise UserError(
            f"--dataset {options.dataset} has no tests to run; pass {' or '.join(CODE_DATASETS)}, or score its answers "
            "with inference_with_rewards.py"
        )
    rows = dataset.load(PPO.texts).evaluation
    found: list[Problem] = []
    seen: set[str] = set()
    for place in np.random.default_rng(SHUFFLE_SEED).permutation(len(rows)).tolist():
        if len(found) == options.num_samples:
            break
        row = rows[place]
        prompt, solution = dataset.prompt(row), dataset.chosen(row)
        if not prompt or prompt in seen or (options.ref_scores and not solution):
            continue
        seen.add(prompt)
        record = dataset.record(row)
        identity = str(row.get("problem_id", place))
        cue = dataset.cue(prompt)
        found.append(Problem(prompt, cue, solution, None, identity, record["difficulty"], record["input_output"]))
    if not found:
        raise UserError(f"--dataset {options.dataset}: no row of the evaluation split is usable; check the data")
    logger.info("%d problems of %s", len(found), dataset.label)
    return found

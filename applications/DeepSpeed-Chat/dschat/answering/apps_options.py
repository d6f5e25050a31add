"""The command line of `inference_apps.py`. The flags that training has too are made from their definitions there."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

from dschat.answering.dataset_names import CODE_DATASETS
from dschat.answering.options import (
    GenerationOptions,
    add_how,
    add_what,
    add_where,
    check_generation,
    model_name,
    with_places,
)
from dschat.config.bounds import check_bounds
from dschat.config.data import DataConfig, PromptStyle
from dschat.config.flag import flags_of
from dschat.config.parse import add_flags, section_from
from dschat.config.rewards import UnitTestRewardConfig
from dschat.errors import UserError


@dataclass(frozen=True)
class AppsOptions(GenerationOptions):
    """What the user of `inference_apps.py` asked for."""

    num_return_sequences: int
    """Answers to each problem."""
    apps_prompt: PromptStyle
    grading: UnitTestRewardConfig


def parse_apps_options(argv: Sequence[str]) -> AppsOptions:
    """Read the command line.

    Raises:
        UserError: a value that cannot work.
    """
    words = vars(_parser().parse_args(argv))
    del words["reward_model"]
    grading = section_from(UnitTestRewardConfig, words)
    found = {"apps_prompt": DataConfig.apps_prompt} | {
        name: value for name, value in words.items() if name not in flags_of(UnitTestRewardConfig)
    }
    check_generation(found)
    answers = found["num_return_sequences"]
    if answers < 1:
        raise UserError(f"--num-return-sequences must be at least 1, got {answers}")
    if answers > 1 and (found["ref_scores"] or found["temperature"] == 0):
        raise UserError(
            f"--num-return-sequences {answers} needs answers that differ; leave out --ref-scores and set a "
            "--temperature above 0"
        )
    check_bounds(grading)
    name = "dataset" if found["ref_scores"] else model_name(found["model"])
    return AppsOptions(**with_places(found, f"{name}_{found['num_samples']}.jsonl"), grading=grading)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="inference_apps.py",
        description="Answers held-out programming problems with a trained model, runs each answer's program on its "
        "problem's tests in a sandbox, and reports accuracy and pass@k. Finished rows go to <output>.partial at once; "
        "a run that was stopped goes on there, and the result file appears when all rows are done.",
        allow_abbrev=False,
    )
    what = parser.add_argument_group("what to answer, with which model")
    add_what(what, result_name="<run>_<step>_<num-samples>.jsonl")
    add = what.add_argument
    add("--dataset", default="apps", help=f"{' or '.join(CODE_DATASETS)}, or a path with data in their form")
    add_flags(what, DataConfig, "apps_prompt", hyphens=True)
    add("--ref-scores", action="store_true", help="run the dataset's own solutions; nothing is generated")
    add("--reward-model", help="for the published command, which names one: it is not read, the tests give the rewards")
    how = parser.add_argument_group("how to answer")
    add_how(how, top_k=5, max_new_tokens=512)
    how.add_argument(
        "--num-return-sequences", type=int, default=1, metavar="N",
        help="answers to each problem; pass@k is reported for k up to it (default: 1)",
    )  # fmt: skip
    grading = parser.add_argument_group("how to run the programs")
    add_flags(grading, UnitTestRewardConfig, hyphens=True)
    add_where(parser.add_argument_group("where to run"))
    return parser

"""The short dataset names of the published inference and judging commands."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from dschat.errors import UserError

HUB_NAMES = {
    "summarize": "openai/summarize_from_feedback",
    "hh-rlhf": "Dahoas/full-hh-rlhf",
    "webgpt": "openai/webgpt_comparisons",
    "pydoc-tldr": "pydoc-tldr",
    "apps": "codeparrot/apps",
    "tiny-apps": "tiny-apps",
}
"""What `--data_path` of the training steps calls each of them."""

CODE_DATASETS = ("apps", "tiny-apps")
"""Those whose answers are programs."""

SUMMARY_DATASETS = ("summarize", "pydoc-tldr")
"""Those whose prompts are TL;DR posts with a subreddit."""


def short_name(dataset: str) -> str:
    """The short name of a dataset that was named by its short or by its hub name; other names are returned as given."""
    return next((short for short, hub in HUB_NAMES.items() if dataset == hub), dataset)


def unknown_dataset(dataset: str, known: Collection[str] = tuple(HUB_NAMES)) -> UserError:
    """The error for a dataset that no rule is written for."""
    near = difflib.get_close_matches(dataset, known, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    return UserError(f"--dataset {dataset} is unknown; {hint}known are {', '.join(known)}")


def folder_name(dataset: str) -> str:
    """The name of a dataset's results folder: its short name, else its name (or its path's last part) in one word."""
    name = short_name(dataset)
    if Path(name).exists():
        name = Path(name).resolve().stem
    return name.strip("/").replace("/", "_")

"""Draws rows of a result file for judging; two models' files sampled with one seed align row by row.

For TL;DR a few rows of every subreddit are drawn, so that the common ones do not fill the sample. Which rows are drawn
depends on the prompts and the seed alone. `--help` lists the flags.
"""

from __future__ import annotations

import argparse
import logging
import random
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from dschat.answering.appended_file import write_whole
from dschat.answering.console import set_up_logging, show
from dschat.answering.dataset_names import HUB_NAMES, SUMMARY_DATASETS, short_name, unknown_dataset
from dschat.answering.results import read_result_rows
from dschat.errors import UserError

logger = logging.getLogger(__name__)

ROWS_PER_SUBREDDIT = 5
_SUBREDDIT = re.compile(r"Subreddit: r/(\S+)")
ARTICLE, NOWHERE = "an article", "no subreddit"


def subreddit(prompt: str) -> str:
    """The group that a TL;DR prompt is drawn from: its subreddit, or one group each for articles and for the rest."""
    if prompt.startswith("ARTICLE"):
        return ARTICLE
    found = _SUBREDDIT.search(prompt)
    return found.group(1) if found else NOWHERE


def stratified_rows(prompts: Sequence[str], count: int, *, seed: int) -> list[int]:
    """Up to five rows of every subreddit, in random order, filled up from the others or cut to `count`.

    Args:
        prompts: of all rows.
        count: at most their number.
        seed: of all draws.
    Returns:
        `count` different row numbers.
    """
    draw = random.Random(seed)
    groups: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        groups.setdefault(subreddit(prompt), []).append(row)
    chosen = [row for rows in groups.values() for row in draw.sample(rows, min(ROWS_PER_SUBREDDIT, len(rows)))]
    draw.shuffle(chosen)
    if len(chosen) < count:
        others = sorted(set(range(len(prompts))) - set(chosen))
        chosen += draw.sample(others, count - len(chosen))
    return chosen[:count]


def uniform_rows(total: int, count: int, *, seed: int) -> list[int]:
    """`count` different numbers of `range(total)`, in random order."""
    return random.Random(seed).sample(range(total), count)


def sample_lines(path: Path, *, dataset: str, count: int, seed: int) -> list[str]:
    """The drawn rows' lines, as they stand in the file.

    Raises:
        UserError: the file is missing or malformed, or has fewer rows than asked for.
    """
    rows = read_result_rows(path, flag="filepath")
    if len(rows) < count:
        raise UserError(f"--filepath {path} has {len(rows)} rows, fewer than --num_sample {count}; ask for fewer")
    # not splitlines: U+2028 may stand inside a JSON string
    lines = [line for line in path.read_text(encoding="utf-8-sig").split("\n") if line.strip()]
    if dataset in SUMMARY_DATASETS:
        drawn = stratified_rows([row["prompt"] for row in rows], count, seed=seed)
    else:
        drawn = uniform_rows(len(rows), count, seed=seed)
    return [lines[row] for row in drawn]


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="sample_from_dataset.py", description="Draws rows of a result file for judging.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--filepath", "--data-path", type=Path, required=True, help="result file of inference_with_rewards.py")
    add("--savepath", "--save-path", type=Path, required=True, help="file for the sample; replaced if it exists")
    add("--dataset", default="summarize", help=f"{', '.join(HUB_NAMES)} (default: summarize)")
    add("--num_sample", type=int, default=50, help="rows to draw (default: 50)")
    add("--seed", type=int, default=42, help="use one seed for all models (default: 42)")
    return parser.parse_args(argv)


def main() -> None:
    """Draw and write."""
    arguments = parse_arguments(sys.argv[1:])
    set_up_logging()
    dataset = short_name(arguments.dataset)
    if dataset not in HUB_NAMES:
        raise unknown_dataset(arguments.dataset)
    if arguments.num_sample < 1:
        raise UserError(f"--num_sample must be at least 1, got {arguments.num_sample}")
    if arguments.savepath.resolve() == arguments.filepath.resolve():
        raise UserError(f"--savepath {arguments.savepath} is --filepath itself; name another file")
    lines = sample_lines(arguments.filepath, dataset=dataset, count=arguments.num_sample, seed=arguments.seed)
    write_whole(arguments.savepath, "".join(f"{line}\n" for line in lines))
    show(f"{arguments.savepath}: {len(lines)} rows of {arguments.filepath}")

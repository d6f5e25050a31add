"""The quickstart's command line, read with the standard library alone: it answers before anything is installed."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SUMMARY_NAME = "summary.json"
MARKER_NAME = ".quickstart"

DESCRIPTION = """\
The whole pipeline on real text, on 2 CPU cores without a network, or on the GPUs where there are any.

Builds the dataset pydoc-tldr from Python's own documentation, trains a tokenizer and a small model from nothing, then
runs the three steps with the deepspeed launcher: supervised fine-tuning, the reward model, and PPO twice from the same
checkpoints (KL and Wasserstein). Ends in a table, curves.png, summary.json and samples.md in the output folder.
The first run creates .venv in the repository's root (5 to 10 minutes, about 6 GB of free disk space needed)."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    output: Path
    """Absolute folder of everything that the run leaves behind."""
    fast: bool
    """A smoke run: everything smaller, and too short to learn much."""
    seed: int
    """Seed of the model's weights, the data order and sampling."""
    overwrite: bool
    """Replace an earlier quickstart in the output folder."""


def parse_options(argv: Sequence[str] | None = None) -> Options:
    """Read the command line; exits with status 2 and one sentence where it cannot work."""
    parser = make_parser("quickstart", DESCRIPTION, fast_help="a smoke run of about 3 minutes instead of 15")
    parser.add_argument("--seed", metavar="N", type=int, default=1234, help="default: 1234")
    options = Options(**vars(parser.parse_args(argv)))
    check(parser, options)
    return options


def make_parser(name: str, description: str, *, fast_help: str) -> argparse.ArgumentParser:
    """A parser of the options that all quickstarts have, but the seed.

    Args:
        name: of the script and of its output folder.
        description: for the help.
        fast_help: what --fast does.
    """
    parser = argparse.ArgumentParser(
        prog=f"{name}.sh",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        # the shell script itself looks for --help and must not miss a shortened one
        allow_abbrev=False,
    )
    parser.add_argument(
        "--output", metavar="DIR", type=_absolute, default=ROOT / "runs" / name,
        help=f"folder for models, logs and results (default: runs/{name} in the repository)",
    )  # fmt: skip
    parser.add_argument("--fast", action="store_true", help=fast_help)
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier run in the output folder")
    return parser


def check(parser: argparse.ArgumentParser, options: Options) -> None:
    """Exit with status 2 and one sentence where the options cannot work."""
    if problem := _problem(options):
        parser.error(problem)


def _absolute(path: str) -> Path:
    return Path(path).expanduser().absolute()


def _problem(options: Options) -> str | None:
    """What stands against these options, as one sentence, or None."""
    folder = options.output
    if not 0 <= options.seed < 2**32:
        return f"--seed must be between 0 and {2**32 - 1}, got {options.seed}"
    if folder.is_dir():
        if not os.access(folder, os.W_OK):
            return f"--output {folder} is not writable; name another folder"
        if (folder / SUMMARY_NAME).exists() and not options.overwrite:
            return f"--output {folder} holds a finished run; add --overwrite to replace it, or name another folder"
        if any(folder.iterdir()) and not (folder / MARKER_NAME).exists():
            return f"--output {folder} holds other files; name a new or an empty folder"
        return None
    # lexists() also sees a link to nowhere, which nobody can make a folder of
    nearest = next(parent for parent in (folder, *folder.parents) if os.path.lexists(parent))
    if not nearest.is_dir():
        return f"--output {folder}: {nearest} is not a folder; name another place"
    if not os.access(nearest, os.W_OK):
        return f"--output {folder}: {nearest} is not writable; name a folder elsewhere"
    return None


if __name__ == "__main__":
    parse_options()

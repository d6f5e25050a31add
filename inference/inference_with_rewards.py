"""Answers held-out prompts and scores the answers; `--help` lists the flags."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dschat.errors import run_guarded
from inference.console import quiet_transformers, set_up_logging, show
from inference.options import parse_options


def main() -> None:
    """Read the command line, then answer."""
    options = parse_options(sys.argv[1:])
    set_up_logging()
    # slow to import: --help and mistakes answer before
    from inference.runner import run

    quiet_transformers()
    show(run(options))


if __name__ == "__main__":
    run_guarded(main)

"""Answers held-out prompts and scores the answers; `--help` lists the flags."""

from __future__ import annotations

import sys

from dschat.answering.console import quiet_transformers, set_up_logging, show
from dschat.answering.options import parse_options
from dschat.errors import run_guarded


def main() -> None:
    """Read the command line, then answer."""
    options = parse_options(sys.argv[1:])
    set_up_logging()
    # slow to import: --help and mistakes answer before
    from dschat.answering.with_rewards import run

    quiet_transformers()
    show(run(options))


if __name__ == "__main__":
    run_guarded(main)

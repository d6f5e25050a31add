"""Answers programming problems and runs the answers' programs on the problems' tests; `--help` lists the flags."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dschat.errors import run_guarded
from inference.apps_options import parse_apps_options
from inference.console import quiet_transformers, set_up_logging, show


def main() -> None:
    """Read the command line, then answer."""
    options = parse_apps_options(sys.argv[1:])
    set_up_logging()
    # slow to import: --help and mistakes answer before
    from inference.apps_runner import run

    quiet_transformers()
    show(run(options))


if __name__ == "__main__":
    run_guarded(main)

"""Answers programming problems and runs the answers' programs on the problems' tests; `--help` lists the flags."""

from __future__ import annotations

import sys

from dschat.answering.apps_options import parse_apps_options
from dschat.answering.console import quiet_transformers, set_up_logging, show
from dschat.errors import run_guarded


def main() -> None:
    """Read the command line, then answer."""
    options = parse_apps_options(sys.argv[1:])
    set_up_logging()
    # slow to import: --help and mistakes answer before
    from dschat.answering.with_unit_tests import run

    quiet_transformers()
    show(run(options))


if __name__ == "__main__":
    run_guarded(main)

"""Answers programming problems and runs the answers' programs on the problems' tests; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.generate_apps import main

if __name__ == "__main__":
    run_guarded(main)

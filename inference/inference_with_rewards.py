"""Answers held-out prompts and scores the answers; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.generate import main

if __name__ == "__main__":
    run_guarded(main)

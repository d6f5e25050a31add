"""Lets a person compare two models' answers in the terminal, blind and in random order; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.judging.human_eval import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

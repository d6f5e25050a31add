"""Lets a person compare two models' answers in the terminal, blind and in random order; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.human_eval import main

if __name__ == "__main__":
    run_guarded(main)

"""Kills training runs, resumes them, and compares what they leave; `--help` lists the flags."""

from dschat.errors import run_guarded
from soak.main import main

if __name__ == "__main__":
    run_guarded(main)

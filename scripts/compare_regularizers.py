"""Trains the built-in task with several regularizers and compares them; `--help` lists the flags."""

from compare_regularizers.main import main
from dschat.errors import run_guarded

if __name__ == "__main__":
    run_guarded(main)

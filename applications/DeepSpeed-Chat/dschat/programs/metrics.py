"""ROUGE against the dataset's preferred answers, and distinct-n, of result files. `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.judging.metrics import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

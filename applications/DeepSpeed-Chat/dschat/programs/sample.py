"""Draws rows of a result file for judging; two models' files sampled with one seed align row by row."""

from dschat.errors import run_guarded
from dschat.judging.sample_from_dataset import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

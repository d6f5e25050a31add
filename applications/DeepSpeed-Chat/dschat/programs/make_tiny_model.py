"""Trains a tokenizer and initialises a small model of matching size: `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.tools.tiny_model import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

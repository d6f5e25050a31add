"""Trains a tokenizer and initialises a small model of matching size; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.make_tiny_model import main

if __name__ == "__main__":
    run_guarded(main)

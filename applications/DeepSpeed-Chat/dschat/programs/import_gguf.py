"""Turns a GGUF file into a plain Hugging Face folder: `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.tools.import_gguf import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

"""Turns a GGUF file into a plain Hugging Face folder; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.import_gguf import main

if __name__ == "__main__":
    run_guarded(main)

"""Adds a LoRA adapter to the weights that it was trained beside; `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.merge_lora import main

if __name__ == "__main__":
    run_guarded(main)

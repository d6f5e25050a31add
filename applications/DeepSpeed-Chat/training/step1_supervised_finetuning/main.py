"""Step 1: supervised fine-tuning. `deepspeed main.py --help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.sft import main

if __name__ == "__main__":
    run_guarded(main)

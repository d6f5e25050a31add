"""Step 2: reward model. `deepspeed main.py --help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.reward import main

if __name__ == "__main__":
    run_guarded(main)

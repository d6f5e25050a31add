"""Step 3: PPO with KL, another f-divergence, or no regularizer. `deepspeed main.py --help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.ppo import main

if __name__ == "__main__":
    run_guarded(main)

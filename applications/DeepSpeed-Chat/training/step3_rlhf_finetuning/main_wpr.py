"""Step 3: PPO with Wasserstein Policy Regularization. `deepspeed main_wpr.py --help` lists the flags."""

from dschat.errors import run_guarded
from dschat.programs.ppo_wpr import main

if __name__ == "__main__":
    run_guarded(main)

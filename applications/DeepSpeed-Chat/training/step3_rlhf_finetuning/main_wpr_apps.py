"""Step 3 on programming problems: rewards from unit tests, Wasserstein Policy Regularization.

`deepspeed main_wpr_apps.py --help` lists the flags.
"""

from dschat.errors import run_guarded
from dschat.programs.ppo_wpr_apps import main

if __name__ == "__main__":
    run_guarded(main)

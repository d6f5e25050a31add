"""Step 3 on programming problems: rewards from unit tests, KL, another f-divergence or no regularizer.

`deepspeed main_apps.py --help` lists the flags.
"""

from __future__ import annotations

import sys

from dschat.config.regularizers import DivergenceConfig
from dschat.config.rewards import UnitTestRewardConfig
from dschat.config.steps import parse_ppo_config
from dschat.errors import run_guarded


def main() -> None:
    """Parse the command line, then train."""
    config = parse_ppo_config(sys.argv[1:], regularizer=DivergenceConfig, reward=UnitTestRewardConfig)
    # after parsing, so that --help and mistakes do not wait for the libraries
    from dschat.rlhf.run_ppo import run_ppo

    run_ppo(config)


if __name__ == "__main__":
    run_guarded(main)

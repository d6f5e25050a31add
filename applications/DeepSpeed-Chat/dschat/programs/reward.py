"""Step 2: reward model. `deepspeed main.py --help` lists the flags."""

from __future__ import annotations

import sys

from dschat.config.steps import parse_reward_config
from dschat.errors import run_guarded


def main() -> None:
    """Parse the command line, then train."""
    config = parse_reward_config(sys.argv[1:])
    # after parsing, so that --help and mistakes do not wait for the libraries
    from dschat.offline.reward import run_reward_training

    run_reward_training(config)


if __name__ == "__main__":
    run_guarded(main)

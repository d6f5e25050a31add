"""Settings of the schedule."""

from __future__ import annotations

from tests.config import commands
from tests.config.commands import parse_kl


def test_warmup_steps_win_over_the_ratio() -> None:
    config = parse_kl([*commands.PPO, "--num_warmup_steps", "7"])
    assert config.schedule.warmup_steps(1000) == 7
    assert parse_kl(commands.PPO).schedule.warmup_steps(1000) == 50

"""The benchmark of saving: what it reads out of metrics.jsonl."""

from __future__ import annotations

import pytest

from saving import Cost, mean_save, mean_step


def test_a_save_is_the_time_between_steps_beyond_the_usual() -> None:
    seconds, lines = 0.0, []
    for step in range(1, 32):
        seconds += 1.0
        lines.append({"step": step, "step_seconds": 1.0, "run_seconds": seconds})
        seconds += 0.25  # between any two steps
        seconds += 2.0 if step % 10 == 0 else 0.0
    assert mean_save(lines) == pytest.approx(2.0)
    assert mean_step(lines) == pytest.approx((30 * 1.25 + 3 * 2.0) / 30)


def test_the_share_is_that_of_a_save_in_ten_steps() -> None:
    assert Cost(step_seconds=0.5, saving_step_seconds=0.6, save_seconds=1.0, state_bytes=1).share == pytest.approx(0.2)

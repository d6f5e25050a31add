"""Tables and pictures of the comparison, from made-up results."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from compare_regularizers.main import drifted_farthest
from compare_regularizers.report import at_equal_reward, cells, draw_answer, draw_comparison, markdown, reward_level
from compare_regularizers.runs import Run


def result(name: str, strength: float, seed: int, reward: float, kl: float, **others: Any) -> dict[str, Any]:
    """A line of results.jsonl whose reference has reward 1; the distance is a tenth of the KL."""

    def point(reward: float, kl: float) -> dict[str, float]:
        return {
            "reward": reward, "kl": kl, "wasserstein": kl / 10, "top_distance": 2 - kl, "response_length": 7.0
        }  # fmt: skip

    parts = {"own": point(reward, kl), "common": point(reward, kl), "reference": point(1.0, 0.0)}
    return {"regularizer": name, "strength": strength, "seed": seed, "beta": strength, **parts, "seconds": 1, **others}


RESULTS = [
    result("none", 0.0, 1, 3.0, 2.0),
    result("none", 0.0, 2, 3.2, 2.4),
    result("kl", 0.5, 1, 2.0, 0.5),
    result("kl", 0.5, 2, 2.0, 0.7),
    result("kl", 0.1, 1, 2.5, 1.0),
    result("kl", 0.1, 2, 2.6, 1.3),
    {"regularizer": "capped", "strength": 0.1, "seed": 1, "fault": "not finite", "seconds": 1},
]


def test_cells_are_means_over_seeds_of_finished_runs() -> None:
    table = cells(RESULTS)

    assert [(cell.regularizer, cell.strength, cell.seeds) for cell in table] == [
        ("none", 0.0, 2), ("kl", 0.1, 2), ("kl", 0.5, 2)
    ]  # fmt: skip
    assert table[1].mean["reward"] == pytest.approx(2.55)
    assert table[1].deviation["kl"] == pytest.approx(0.3 / 2**0.5)


def test_equal_reward_is_read_off_straight_lines_between_runs() -> None:
    done = RESULTS[:-1]
    level = reward_level(done, 0.5)
    none, kl = at_equal_reward(done, level)

    # half of the way from 1 to 2.55, the best mean of KL
    assert level == pytest.approx(1.775)
    # from (1, 0) to (2, 0.5) and (2, 0.7)
    assert kl.seeds == 2 and kl.mean["kl"] == pytest.approx(0.775 * 0.6)
    # from (1, 0) to (3, 2) and to (3.2, 2.4)
    assert none.mean["kl"] == pytest.approx((0.775 / 2 * 2 + 0.775 / 2.2 * 2.4) / 2)
    assert all(row.seeds == 0 and not row.mean for row in at_equal_reward(done, 9.0))


def test_report_names_every_cell_and_the_run_that_broke_down(tmp_path: Path) -> None:
    text = markdown(RESULTS)
    draw_comparison(tmp_path / "a.png", RESULTS)
    trace = {"tokens": [" a$", "\n", "b_"], "kl": [0.1, -0.2, 0.3], "truncated": [1, 2, 3], "debiased": [0, 1, -1]}
    draw_answer(tmp_path / "b.png", trace, title="an answer")

    assert "| KL | 0.5 | 0.5 | 2 | 2 ± 0 |" in text
    assert "Ended early: capped 0.1, seed 1" in text
    assert drifted_farthest(RESULTS) == Run("kl", 0.1, 2)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))

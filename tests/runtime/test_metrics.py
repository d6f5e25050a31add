"""Named metrics: weighted means and the files they are written to."""

from __future__ import annotations

import json
import math
from pathlib import Path

import torch

from dschat.runtime.metrics import MetricsLog, WeightedMeans

CPU = torch.device("cpu")


def test_means_weigh_every_addition() -> None:
    means = WeightedMeans(CPU)
    means.add("loss", torch.tensor(6.0), 3)
    means.add("loss", 4.0, torch.tensor(1))
    means.add("reward", -1.5, 1.0)
    assert means.reduce() == {"loss": 2.5, "reward": -1.5}
    assert means.reduce() == {}


def test_a_mean_over_nothing_is_nan() -> None:
    means = WeightedMeans(CPU)
    means.add("reward", 0.0, 0.0)
    assert math.isnan(means.reduce()["reward"])


def test_log_writes_json_lines_and_nan_as_null(tmp_path: Path) -> None:
    path = tmp_path / "run" / "metrics.jsonl"
    with MetricsLog(path, None) as log:
        log.write(7, {"loss": 1.0})
    with MetricsLog(path, None) as log:
        log.write(1, {"loss": 0.5, "reward": math.nan})
        log.write(2, {"loss": math.inf})
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 1, "loss": 0.5, "reward": None}, {"step": 2, "loss": None}]


def test_tensorboard_gets_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tb") as log:
        log.write(1, {"reward": 0.25})
        log.write(2, {"reward": 0.75})
    events = EventAccumulator(str(tmp_path / "tb"))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("reward")] == [(1, 0.25), (2, 0.75)]

"""Named metrics: weighted means and the files they are written to."""

from __future__ import annotations

import json
import logging
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.runtime.metrics import MetricsLog, Sums

CPU = torch.device("cpu")


def test_means_weigh_every_addition() -> None:
    first, second = Sums.of({"loss": (torch.tensor(6.0), 3)}), Sums.of({"loss": (4.0, torch.tensor(1))})
    assert (first + second + Sums.of({"reward": (-1.5, 1.0)})).means(CPU) == {"loss": 2.5, "reward": -1.5}
    assert first.means(CPU) == {"loss": 2.0}
    assert Sums().means(CPU) == {}


def test_a_mean_over_nothing_is_nan() -> None:
    assert math.isnan(Sums.of({"reward": (0.0, 0.0)}).means(CPU)["reward"])


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
    with MetricsLog(tmp_path / "metrics.jsonl", tmp_path / "tb") as log:
        log.write(1, {"reward": 0.25})
        log.write(2, {"reward": 0.75})
    assert [(event.step, event.value) for event in read_events(tmp_path / "tb")] == [(1, 0.25), (2, 0.75)]


def read_events(folder: Path) -> list[Any]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events.Scalars("reward")


def block(place: Path, how: str) -> None:
    """Make a file unwritable in a way that stops root too."""
    match how:
        case "folder in its place":
            place.mkdir()
        case "full disk":
            place.symlink_to("/dev/full")


@pytest.mark.parametrize(
    ("how", "done"), [("folder in its place", None), ("folder in its place", 2), ("full disk", None)]
)
def test_a_log_that_cannot_be_written_is_one_warning(
    how: str, done: int | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    block(path, how)
    with caplog.at_level(logging.WARNING), MetricsLog(path, tmp_path / "tb", done=done) as log:
        for step in (3, 4, 5):
            log.write(step, {"reward": float(step)})
    (warning,) = [message for message in caplog.messages if "cannot be written" in message]
    assert warning.startswith(f"{path} cannot be written (")
    assert warning.endswith("); training goes on without these numbers")
    # TensorBoard does not suffer
    assert [event.step for event in read_events(tmp_path / "tb")] == [3, 4, 5]


def test_tensorboard_that_cannot_be_written_is_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path / "m.jsonl", tmp_path / "file/tb") as log:
        log.write(1, {"reward": 1.0})
        log.write(2, {"reward": 2.0})
    assert [message.split(" (")[0] for message in caplog.messages] == [f"{tmp_path}/file/tb cannot be written"]
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2


def test_a_disk_that_fills_up_under_tensorboard_is_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch.utils.tensorboard import SummaryWriter

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING), MetricsLog(tmp_path / "m.jsonl", tmp_path / "tb") as log:
        monkeypatch.setattr(SummaryWriter, "add_scalar", full)
        monkeypatch.setattr(SummaryWriter, "close", full)
        for step in (1, 2):
            log.write(step, {"reward": 1.0})
    assert [message.split(" (")[0] for message in caplog.messages] == [f"{tmp_path}/tb cannot be written"]
    assert len((tmp_path / "m.jsonl").read_text().splitlines()) == 2

"""Jobs in forks of one warm process (soak.fork_server): how they ended, and what they passed."""

from __future__ import annotations

import signal
from pathlib import Path

from dschat.runtime import faults
from soak.forks import Forks, numbers, weights
from soak.runs import job


def test_a_job_ends_as_an_entry_point_does(forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    ended = forks.run(job("sft", paths, tmp_path / "out", "--max_steps 2"))
    assert ended.status == 0, ended.text
    assert [line["step"] for line in numbers(tmp_path / "out")] == [0, 1, 2]
    assert not any(name.endswith("seconds") for line in numbers(tmp_path / "out") for name in line)
    assert list(weights(tmp_path / "out")) == ["step_1/model.safetensors", "step_2/model.safetensors"]
    refused = forks.run(job("sft", paths, tmp_path / "out", "--max_steps 0 --learning_rate -1"))
    assert refused.status == 2 and "--learning_rate" in refused.text


def test_places_are_recorded_up_to_the_kill(forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    ended = forks.run(job("sft", paths, tmp_path / "out", "--max_steps 2"), fault="loop.step_done:1")
    assert ended.status == -signal.SIGKILL
    assert ended.places[-1] == "loop.step_done" and "train.backward" in ended.places


def test_two_ranks_train_together_and_the_victim_alone_is_killed(
    forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    words = job("sft", paths, tmp_path / "out", "--max_steps 2 --dist_timeout 30 --per_device_train_batch_size 4")
    ended = forks.run(words, ranks=2, victim=1, fault="train.backward:1", environment={faults.RANK: "1"})
    assert ended.statuses == (1, -signal.SIGKILL), ended.text
    assert "contact with another rank was lost" in ended.text

"""Forgetting any single piece of the state is noticed, so that equal runs mean that nothing is forgotten."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from soak.forks import Forks, numbers, weights
from soak.runs import job
from tests.resume.mutations import FORGET, PIECES
from toys.jobs import Job

REMEMBERING = "tests.resume.mutations:remember_everything"


def ppo(paths: dict[str, str], output: Path, extra: str = "") -> Job:
    changing = "--enable_ema --normalize_rewards --penalty_target 0.02"  # these have state of their own
    return job("ppo", paths, output, f"--max_steps 5 --on_nan skip {changing} {extra}")


def everything(folder: Path) -> tuple[Any, ...]:
    """Metrics, weights, and the parts of the last state."""
    parts = [torch.load(folder / "state/step-5" / name, weights_only=True) for name in ("shared.pt", "rank-0.pt")]
    return numbers(folder), weights(folder), str(parts)


@pytest.fixture(scope="module")
def runs(forks: Forks, paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, and one that was killed when it had written the numbers of its fourth step."""
    folder = tmp_path_factory.mktemp("runs")
    whole = forks.run(ppo(paths, folder / "whole"), setup=REMEMBERING)
    assert whole.status == 0, whole.text
    killed = forks.run(ppo(paths, folder / "killed"), setup=REMEMBERING, fault="metrics.written:4")
    assert killed.status == -9, killed.text
    return folder


def resumed(forks: Forks, paths: dict[str, str], runs: Path, output: Path, **environment: str) -> tuple[Any, ...]:
    shutil.copytree(runs / "killed", output, symlinks=True)
    ended = forks.run(ppo(paths, output, "--resume auto"), setup=REMEMBERING, environment=environment)
    assert ended.status == 0, ended.text
    assert " of 5, from " in ended.text
    return everything(output)


def test_nothing_forgotten(forks: Forks, paths: dict[str, str], runs: Path, tmp_path: Path) -> None:
    assert resumed(forks, paths, runs, tmp_path / "out") == everything(runs / "whole")


@pytest.mark.parametrize("piece", PIECES)
def test_one_piece_forgotten(piece: str, forks: Forks, paths: dict[str, str], runs: Path, tmp_path: Path) -> None:
    assert resumed(forks, paths, runs, tmp_path / "out", **{FORGET: piece}) != everything(runs / "whole")

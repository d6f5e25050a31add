"""Fixtures of the front ends' tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.answering.helpers import make_models


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `run/step-7/actor`, `base` and `reward/step_3`; the reward model reads long texts."""
    folder = tmp_path_factory.mktemp("models")
    make_models(folder, reward_positions=512)
    return folder

"""Fixtures of the tests of resuming."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs import make_folders
from tests.resume.forks import Forks


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Toy models and data, and a cache for the data."""
    folder = tmp_path_factory.mktemp("models")
    return {**make_folders(folder), "cache": str(folder / "cache")}


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A warm process that runs jobs in forks."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()

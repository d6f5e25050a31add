"""Fixtures that several packages' tests share."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from soak.forks import Forks
from tests.leftovers import pytest_sessionfinish, pytest_sessionstart  # noqa: F401
from tests.pretrained import PretrainedModel, imported_smollm2
from tests.skipped import pytest_terminal_summary  # noqa: F401
from toys.jobs import make_folders

os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and their children with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def process_group() -> Iterator[torch.device]:
    """A group of one process, shared by the whole session: DeepSpeed's start-up costs seconds."""
    from dschat.runtime.distributed import initialize

    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    yield initialize(-1)
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="session")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Toy models and data, and a cache for the data."""
    folder = tmp_path_factory.mktemp("models")
    return {**make_folders(folder), "cache": str(folder / "cache")}


@pytest.fixture(scope="session")
def smollm2() -> PretrainedModel:
    """A real pretrained model of 135 million weights; tests that need it are skipped where its package is absent."""
    return imported_smollm2()


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    """A warm process that runs jobs in forks."""
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two cores are shared with the launcher tests; more threads only make tiny tensors slower."""
    torch.set_num_threads(1)

"""Two runs on one port: the second is told so in one sentence, and the first does not notice."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dschat.errors import RankFault, RankMistake, UserError
from dschat.runtime import rendezvous
from dschat.runtime.distributed import prepare_environment
from dschat.runtime.rendezvous import free_port
from tests.launch import launch

SCRIPT = Path(__file__).parent / "meet.py"


class Run:
    """A run of two ranks that has met and waits."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._ranks = [self._start(rank) for rank in range(2)]
        while len(list(folder.iterdir())) < 2:
            assert all(rank.poll() is None for rank in self._ranks)
            time.sleep(0.05)

    def _start(self, rank: int) -> subprocess.Popen[bytes]:
        place = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": 2,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": self.port,
        }
        environment = os.environ | {name: str(value) for name, value in place.items()}
        return subprocess.Popen([sys.executable, SCRIPT, f"--local_rank={rank}", self.folder], env=environment)

    def end(self) -> list[str]:
        """Let the ranks go on; the sums that they find."""
        (self.folder / "go").touch()
        assert [rank.wait(timeout=60) for rank in self._ranks] == [0, 0]
        return [(self.folder / f"rank{rank}").read_text() for rank in range(2)]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    run = Run(tmp_path_factory.mktemp("first"))
    yield run
    # whoever knocked meanwhile, the run goes on as if nobody had
    assert run.end() == ["3.0", "3.0"]


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Where `take_seat` finds its rank, port and words."""
    for name, value in {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(rendezvous, "OWNER_SECONDS", 0.5)
    return monkeypatch


def test_a_second_launch_on_the_port_of_a_run_is_one_sentence(first: Run, tmp_path: Path) -> None:
    second = launch(SCRIPT, str(tmp_path), port=first.port, timeout=120)
    assert second.returncode == 2, second.stderr
    (error,) = [line for line in second.stderr.splitlines() if line.startswith("error")]
    assert error.startswith(f"error: port {first.port} of 127.0.0.1 is in use by the run of process ")
    assert "; give this run a port of its own: deepspeed --master_port " in error
    assert "Traceback" not in second.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_rank_of_another_run_notices_whose_port_it_is(first: Run, place: pytest.MonkeyPatch) -> None:
    place.setenv("MASTER_PORT", str(first.port))
    place.setattr(sys, "argv", ["meet.py", "--local_rank=1", "another folder"])
    with pytest.raises(RankMistake, match=rf"port {first.port} of 127.0.0.1 is in use by the run of process \d+ on"):
        rendezvous.take_seat(timeout_seconds=5.0)


def test_a_second_start_of_the_same_command_finds_its_seat_taken(first: Run, place: pytest.MonkeyPatch) -> None:
    place.setenv("MASTER_PORT", str(first.port))
    place.setattr(sys, "argv", ["meet.py", "--local_rank=1", str(first.folder)])
    with pytest.raises(RankMistake, match="is in use by the run of process"):
        rendezvous.take_seat(timeout_seconds=5.0)
    # a seat that is free is this run's: the launcher's own words do not count
    place.setenv("RANK", "7")
    assert rendezvous.take_seat(timeout_seconds=5.0) is not None


def test_a_rank_without_a_first_one_says_what_it_waited_for(place: pytest.MonkeyPatch) -> None:
    place.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(RankFault, match=r"waited 1 s \(--dist_timeout\) in vain for rank 0 at 127.0.0.1:"):
        rendezvous.take_seat(timeout_seconds=1.0)


def test_another_program_at_the_port_is_named_as_such(place: pytest.MonkeyPatch) -> None:
    place.setenv("RANK", "0")
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        place.setenv("MASTER_PORT", str(port))
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is in use by another program; give this run a"):
            rendezvous.take_seat(timeout_seconds=5.0)


def test_a_run_of_one_process_takes_any_free_port_instead_of_the_launchers(place: pytest.MonkeyPatch) -> None:
    with socket.create_server(("", 0)) as server:
        taken = str(server.getsockname()[1])
        for name, value in {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_PORT": taken}.items():
            place.setenv(name, value)
        prepare_environment(0)
        assert os.environ["MASTER_PORT"] != taken
        assert rendezvous.take_seat(timeout_seconds=5.0) is not None
    # torchrun's agent listens at the port that it names
    place.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")
    place.setenv("MASTER_PORT", taken)
    prepare_environment(0)
    assert os.environ["MASTER_PORT"] == taken
    assert rendezvous.take_seat(timeout_seconds=5.0) is None

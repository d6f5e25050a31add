"""A state that is not what was written is never loaded: the one before it is, and the log says why."""

from __future__ import annotations

import json
import os
import pickle
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dschat.errors import UserError
from dschat.runtime.resume import find_state
from soak.forks import Forks, numbers, weights
from soak.runs import job
from toys.jobs import run_job

pytestmark = pytest.mark.usefixtures("process_group")

CUTS = 20
FLIPS = 100


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, paths: dict[str, str], process_group: object) -> Path:
    """A run with the states of steps 4 and 5."""
    folder = tmp_path_factory.mktemp("run") / "out"
    run_job(job("ppo", paths, folder, "--max_steps 5"))
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of it to damage."""
    shutil.copytree(finished, tmp_path / "out", symlinks=True)
    return tmp_path / "out"


@pytest.fixture(autouse=True)
def warnings(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], str]]:
    """The warnings since the last call."""

    def take() -> str:
        text = caplog.text
        caplog.clear()
        return text

    yield take


def step_found(run: Path) -> int:
    point = find_state(run, "auto")
    assert point is not None
    return point.manifest.step


def newest_files(run: Path) -> list[Path]:
    return sorted(path for path in (run / "state/step-5").rglob("*") if path.is_file())


def test_an_untouched_state_is_found(run: Path) -> None:
    assert step_found(run) == 5
    assert len(newest_files(run)) == 5


def test_a_missing_file(run: Path, warnings: Callable[[], str]) -> None:
    for file in newest_files(run):
        content = file.read_bytes()
        file.unlink()
        assert step_found(run) == 4
        text = warnings()
        assert f"the state {run}/state/step-5 is not whole" in text
        assert file.name in text
        file.write_bytes(content)
    assert step_found(run) == 5


def test_a_cut_file(run: Path, warnings: Callable[[], str]) -> None:
    generator = random.Random(0)
    for file in newest_files(run):
        content = file.read_bytes()
        for _ in range(CUTS // 5):
            file.write_bytes(content[: generator.randrange(len(content))])
            assert step_found(run) == 4
            assert file.name in warnings()
        file.write_bytes(content)


def test_a_flipped_bit(run: Path, warnings: Callable[[], str]) -> None:
    generator = random.Random(1)
    for _ in range(FLIPS):
        file = generator.choice(newest_files(run))
        content = bytearray(file.read_bytes())
        content[generator.randrange(len(content))] ^= 1 << generator.randrange(8)
        before = file.read_bytes()
        file.write_bytes(content)
        assert step_found(run) == 4, file
        assert file.name in warnings()
        file.write_bytes(before)


def test_a_page_of_zeros(run: Path, warnings: Callable[[], str]) -> None:
    file = max(newest_files(run), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[8192:12288] = bytes(4096)
    file.write_bytes(content)
    assert step_found(run) == 4
    assert "has other content than was written" in warnings()


def test_a_state_that_was_named_is_taken_or_refused(run: Path) -> None:
    point = find_state(run, str(run / "state/step-4"))
    assert point is not None
    assert point.manifest.step == 4
    (run / "state/step-5/rank-0.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"step-5 is no whole state \(rank-0.pt has 0 bytes instead of 17,\d+\)"):
        find_state(run, str(run / "state/latest"))


def test_no_whole_state_at_all(run: Path) -> None:
    for state in (run / "state").glob("step-*"):
        (state / "shared.pt").unlink()
    with pytest.raises(UserError, match=r"none of the 2 states in .*state is whole; pass --overwrite_output_dir"):
        find_state(run, "auto")


def test_a_manifest_of_another_format_or_with_changes(run: Path, warnings: Callable[[], str]) -> None:
    manifest = run / "state/step-5/manifest.json"
    content = json.loads(manifest.read_text())
    for change, reason in (
        ({"format": 2}, "has format 2, this version reads 1"),
        ({"settings": {}}, "has other content than was written"),
        ({"step": 6}, "has other content than was written"),
    ):
        manifest.write_text(json.dumps(content | change))
        assert step_found(run) == 4
        assert reason in warnings()


class RunsAProgram:
    """What a planted file of a state holds."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self._canary}",)


def test_a_planted_file_is_neither_loaded_nor_run(run: Path, paths: dict[str, str], tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    for file in newest_files(run):
        if file.suffix == ".pt":
            file.write_bytes(pickle.dumps(RunsAProgram(canary)))
    lines = run_job(job("ppo", paths, run, "--max_steps 5 --resume auto"))
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    # a folder of the right form, but nobody's state
    foreign = tmp_path / "foreign/step-5"
    shutil.copytree(run / "state/step-5", foreign)
    (foreign / "manifest.json").unlink()
    (foreign / "shared.pt").write_bytes(pickle.dumps(RunsAProgram(canary)))
    with pytest.raises(
        UserError, match=r"is no whole state \(manifest.json cannot be read: No such file or directory\)"
    ):
        run_job(job("ppo", paths, tmp_path / "new", f"--max_steps 5 --resume {foreign}"))
    assert not canary.exists()


def test_a_run_goes_on_from_the_state_before_the_damaged_one(
    forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    whole = forks.run(job("sft", paths, tmp_path / "whole", "--max_steps 6"))
    assert whole.status == 0, whole.text
    out = tmp_path / "out"
    killed = forks.run(job("sft", paths, out, "--max_steps 6"), fault="loop.step_done:5")
    assert killed.status == -9
    weights_file = out / "state/step-4/model/mp_rank_00_model_states.pt"
    content = bytearray(weights_file.read_bytes())
    content[len(content) // 2] ^= 1
    weights_file.write_bytes(content)
    ended = forks.run(job("sft", paths, out, "--max_steps 6 --resume auto"))
    assert ended.status == 0, ended.text
    assert "step-4 is not whole (model/mp_rank_00_model_states.pt has other content" in ended.text
    assert "going on after step 3 of 6" in ended.text
    assert numbers(out) == numbers(tmp_path / "whole")
    assert weights(out) == weights(tmp_path / "whole")

"""Two ranks under the real launcher: they stop together, lose nothing together, and say who is missing."""

from __future__ import annotations

import dataclasses
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dschat.runtime import faults
from soak.forks import Ended, Forks, numbers, weights
from tests.launch import launch
from toys.jobs import Job, ppo_arguments, supervised_arguments

SCRIPT = Path(__file__).parent / "run_script.py"
PARTITIONED = (
    "--actor_zero_stage 2 --critic_zero_stage 3 --actor_dropout 0.1 --save_steps 2 "
    "--per_device_generation_batch_size 4 --per_device_training_batch_size 4"
)


def entry(job: Job, *, fault: str = "", stops: bool = False) -> dict[str, Any]:
    environment = {faults.FAULT: fault, faults.RANK: "1"} if fault else {}
    return {"job": dataclasses.asdict(job), "environment": environment, "stops": stops}


def ppo(paths: dict[str, str], output: Path, extra: str = "") -> Job:
    return Job("ppo", ppo_arguments(paths, output, f"--data_output_path {paths['cache']} {PARTITIONED} {extra}"))


def sft(paths: dict[str, str], output: Path, extra: str = "") -> Job:
    shared = f"--data_output_path {paths['cache']} --zero_stage 3 --dropout 0.1 --per_device_train_batch_size 4"
    return Job("sft", supervised_arguments(paths, "sft", output, f"{shared} {extra}"))


def start(folder: Path, entries: list[dict[str, Any]]) -> subprocess.CompletedProcess[str]:
    file = folder / "jobs.json"
    file.write_text(json.dumps(entries))
    return launch(SCRIPT, str(file))


@pytest.fixture(scope="module")
def first(paths: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Runs that are stopped on the second rank and resumed; then one in which the second rank is killed in a save."""
    folder = tmp_path_factory.mktemp("two")
    ended = start(folder, [
        entry(ppo(paths, folder / "ppo-whole")),
        entry(ppo(paths, folder / "ppo"), fault="train.backward:3:stop", stops=True),
        entry(ppo(paths, folder / "ppo", "--resume auto")),
        entry(ppo(paths, folder / "killed"), fault="state.rank:2"),
    ])  # fmt: skip
    assert ended.returncode != 0
    assert (folder / "killed/state/step-2/manifest.json").is_file(), ended.stdout[-4000:] + ended.stderr[-4000:]
    return folder, ended.stdout + ended.stderr


def test_a_signal_to_one_rank_stops_both_and_nothing_is_lost(first: tuple[Path, str]) -> None:
    folder, printed = first
    assert numbers(folder / "ppo") == numbers(folder / "ppo-whole"), printed[-4000:]
    assert weights(folder / "ppo") == weights(folder / "ppo-whole")


def test_every_rank_writes_its_part_of_a_state(first: tuple[Path, str]) -> None:
    folder, _ = first
    manifest = json.loads((folder / "ppo-whole/state/latest/manifest.json").read_text())
    assert manifest["world_size"] == 2
    for number in (0, 1):
        assert f"rank-{number}.pt" in manifest["files"]
        for role in ("actor", "critic"):
            assert any(name.startswith(f"{role}/zero_pp_rank_{number}_") for name in manifest["files"])


def test_survivors_of_a_killed_rank_say_so(first: tuple[Path, str]) -> None:
    _, printed = first
    assert "error: contact with another rank was lost at step 4; its own message says why" in printed


def test_a_rank_killed_in_the_middle_of_a_save_costs_nothing_that_was_saved(
    first: tuple[Path, str], forks: Forks, paths: dict[str, str]
) -> None:
    folder, _ = first
    ended = forks.run(ppo(paths, folder / "killed", "--resume auto"), ranks=2)
    assert ended.statuses == (0, 0), ended.text
    assert "going on after step 2 of 5" in ended.text
    assert numbers(folder / "killed") == numbers(folder / "ppo-whole")
    assert weights(folder / "killed") == weights(folder / "ppo-whole")


@pytest.mark.parametrize(("way", "status"), [("raise", 1), ("exit", 0)])
def test_a_rank_that_ends_by_a_bug_or_too_early_ends_the_run(
    way: str, status: int, forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    ended = forks.run(sft(paths, tmp_path / "out"), ranks=2, setup=f"tests.resume.mutations:{way}_on_rank_1")
    assert ended.statuses == (1, status), ended.text
    assert "error: contact with another rank was lost at step 2; its own message says why" in ended.text
    assert ("KeyError: 'a bug of this rank'" in ended.text) == (way == "raise")


def test_a_rank_that_hangs_is_named(forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    # the other rank is waited for 8 seconds, and hangs for 20
    ended = forks.run(
        sft(paths, tmp_path / "out", "--dist_timeout 8"), ranks=2, fault="train.backward:2:hang",
        environment={faults.RANK: "1"},
    )  # fmt: skip
    assert ended.status == 1, ended.text
    assert "waited in vain for the other ranks at step 2 (--dist_timeout); ranks that did not arrive: 1" in ended.text


def test_numbers_broken_on_one_rank_are_left_out_by_both(forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    ended = forks.run(
        sft(paths, tmp_path / "out", "--on_nan skip"), ranks=2, setup="tests.resume.mutations:break_losses_of_rank_1"
    )
    assert ended.statuses == (0, 0), ended.text
    assert "the training loss became NaN or infinite at step 3 on rank 1; no weights were changed" in ended.text
    lines = numbers(tmp_path / "out")
    assert [line.get("skipped_steps") for line in lines] == [None, 0, 0, 1, 1, 1]


COMPARED = ("reward", "penalty", "actor_loss", "critic_loss", "actor_grad_norm", "actor_learning_rate")


@pytest.mark.parametrize(("before", "after", "stages"), [(2, 1, (2, 3)), (1, 2, (1, 2)), (1, 2, (0, 0))])
def test_a_run_goes_on_alike_with_another_number_of_ranks(
    before: int, after: int, stages: tuple[int, int], forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    def run(output: Path, ranks: int, extra: str = "", fault: str = "") -> Ended:
        rows = "--per_device_generation_batch_size {0} --per_device_training_batch_size {0}".format(8 // ranks)
        zero = "--actor_zero_stage {} --critic_zero_stage {}".format(*stages)
        shared = f"--data_output_path {paths['cache']} --save_steps 1 {zero} {rows} {extra}"
        words = ppo_arguments(paths, output, shared)
        return forks.run(Job("ppo", words, fixed_answers=True), ranks=ranks, fault=fault)

    assert run(tmp_path / "whole", after).statuses == (0,) * after
    out = tmp_path / "out"
    assert run(out, before, fault="loop.step_done:3:stop").statuses == (75,) * before
    refused = run(out, after, "--resume auto")
    assert refused.status == 2
    assert f"number of ranks was {before}, is {after}" in refused.text
    ended = run(out, after, "--resume auto --resume_override")
    assert ended.statuses == (0,) * after, ended.text
    ours, theirs = numbers(out), numbers(tmp_path / "whole")
    assert [line["step"] for line in ours] == [1, 2, 3, 4, 5]
    for mine, other in zip(ours, theirs, strict=True):
        for name in COMPARED:
            if name in other and name in mine:
                assert mine[name] == pytest.approx(other[name], rel=2e-4, abs=2e-5), (mine["step"], name)


LAUNCHER = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", '''
import time
from dschat.runtime.stopping import follow_launcher
follow_launcher()
print("ready", flush=True)
time.sleep(600)
'''])
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_rank_dies_with_its_launcher() -> None:
    launcher = subprocess.Popen([sys.executable, "-c", LAUNCHER], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    child = int(launcher.stdout.readline())
    assert launcher.stdout.readline().strip() == "ready"
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)

"""Asked to stop, a run finishes its step, saves, and says how to go on."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections import Counter
from pathlib import Path

import pytest
import torch

from dschat.errors import Stopped, TrainingFault, UserError
from dschat.runtime import faults, stopping, store
from dschat.runtime.lock import RunLock
from dschat.runtime.stopping import StopRequests
from soak.forks import Forks, numbers, weights
from soak.runs import STEPS, job
from toys.jobs import read_metrics, run_job

RESUMABLE = 75


@pytest.mark.parametrize("step", STEPS)
def test_a_signal_ends_the_run_after_its_step(step: str, forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    rare = "--max_steps 5 --save_steps 0"
    whole = forks.run(job(step, paths, tmp_path / "whole", rare))
    assert whole.status == 0, whole.text
    out = tmp_path / "out"
    stopped = forks.run(job(step, paths, out, rare), fault="train.backward:3:stop")
    assert stopped.status == RESUMABLE, stopped.text
    assert (
        "stopped: stopped by SIGTERM after step 3; everything is saved, go on with the same command and --resume auto"
        in stopped.text
    )
    assert "Traceback" not in stopped.text
    ended = forks.run(job(step, paths, out, f"{rare} --resume auto"))
    assert ended.status == 0, ended.text
    assert numbers(out) == numbers(tmp_path / "whole")
    exported = {name for name in weights(tmp_path / "whole") if "5" in name}
    assert {name: weights(out)[name] for name in exported} == {
        name: weights(tmp_path / "whole")[name] for name in exported
    }
    seconds = [line["run_seconds"] for line in read_metrics(out) if "run_seconds" in line]
    assert seconds == sorted(seconds)


def test_signals_close_together_are_one_request_and_a_later_one_ends_the_process(
    monkeypatch: pytest.MonkeyPatch, process_group: torch.device
) -> None:
    now = [100.0]
    monkeypatch.setattr(stopping.time, "monotonic", lambda: now[0])
    with pytest.raises(KeyboardInterrupt), StopRequests() as requests:
        assert not requests.agreed(torch.device("cpu"))
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(os.getpid(), number)
        assert requests.agreed(torch.device("cpu"))
        assert requests.reason == "SIGINT"
        now[0] += stopping.GRACE_SECONDS + 1
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.fixture
def stopped_run(paths: dict[str, str], tmp_path: Path, process_group: torch.device) -> Path:
    """A run with the states of steps 2 and 3 of 6."""
    out = tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(faults.FAULT, "loop.step_done:3:stop")
        patch.setattr(faults, "_passed", Counter())
        with pytest.raises(Stopped):
            run_job(job("sft", paths, out, "--max_steps 6"))
    return out


def refusal(paths: dict[str, str], out: Path, extra: str, step: str = "sft") -> str:
    with pytest.raises(UserError) as caught:
        run_job(job(step, paths, out, f"--max_steps 6 {extra}"))
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_a_folder_with_a_run_is_refused_and_the_way_on_is_named(stopped_run: Path, paths: dict[str, str]) -> None:
    text = refusal(paths, stopped_run, "")
    assert "already holds a run (metrics.jsonl); pass --resume auto to go on with it, --overwrite_output_dir" in text
    (stopped_run / "metrics.jsonl").unlink()
    assert "already holds a run (state)" in refusal(paths, stopped_run, "")
    assert "contradict each other" in refusal(paths, stopped_run, "--resume auto --overwrite_output_dir")
    assert "there is no such folder" in refusal(paths, stopped_run, "--resume /nowhere")


def test_other_settings_are_listed(stopped_run: Path, paths: dict[str, str], tmp_path: Path) -> None:
    text = refusal(paths, stopped_run, "--resume auto --learning_rate 0.02 --weight_decay 0.5")
    assert "(--learning_rate was 0.01, is 0.02; --weight_decay was 0.0, is 0.5); use the same" in text
    assert "--resume_override" in text
    other = tmp_path / "other.jsonl"
    other.write_text("".join(Path(paths["data"]).read_text().splitlines(keepends=True)[:-9]))
    assert "training rows (data, tokenizer, lengths) was" in refusal(
        paths, stopped_run, f"--resume auto --data_path {other}"
    )
    model = tmp_path / "model"
    shutil.copytree(paths["sft"], model)
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-5}))
    assert "content of --model_name_or_path was" in refusal(
        paths, stopped_run, f"--resume auto --model_name_or_path {model}"
    )
    assert "is a state of sft, this is reward" in refusal(paths, stopped_run, "--resume auto", step="reward")


def test_settings_that_do_not_matter_may_change(stopped_run: Path, paths: dict[str, str], tmp_path: Path) -> None:
    copy = tmp_path / "pairs.jsonl"
    shutil.copy(paths["data"], copy)
    moved = stopped_run.rename(tmp_path / "moved")
    lines = run_job(
        job("sft", paths, moved, f"--max_steps 6 --resume auto --save_steps 4 --data_path {copy} --eval_interval 2")
    )
    assert [line["step"] for line in lines] == list(range(7))


def test_an_override_goes_on_with_other_settings(
    stopped_run: Path, paths: dict[str, str], capfd: pytest.CaptureFixture[str]
) -> None:
    lines = run_job(job("sft", paths, stopped_run, "--max_steps 4 --resume auto --resume_override"))
    assert [line["step"] for line in lines] == list(range(5))
    assert "going on with other settings than before: --max_steps was 6, is 4" in capfd.readouterr().out


def test_a_named_older_state_sets_the_later_ones_aside(stopped_run: Path, paths: dict[str, str]) -> None:
    lines = run_job(job("sft", paths, stopped_run, f"--max_steps 6 --resume {stopped_run}/state/step-2"))
    assert [line["step"] for line in lines] == list(range(7))
    assert (stopped_run / "state/abandoned-step-3/manifest.json").is_file()
    assert sorted(path.name for path in (stopped_run / "state").glob("step-*")) == ["step-5", "step-6"]


def test_a_state_of_another_folder_begins_a_new_run(stopped_run: Path, paths: dict[str, str], tmp_path: Path) -> None:
    lines = run_job(job("sft", paths, tmp_path / "branch", f"--max_steps 6 --resume {stopped_run}/state/latest"))
    assert [line["step"] for line in lines] == [4, 5, 6]
    assert (stopped_run / "state/step-3/manifest.json").is_file()
    text = refusal(paths, tmp_path / "branch", f"--resume {stopped_run}/state/latest")
    assert "already holds a run" in text


def test_auto_starts_where_there_is_nothing_and_ends_where_all_is_done(
    paths: dict[str, str], tmp_path: Path, process_group: torch.device, capfd: pytest.CaptureFixture[str]
) -> None:
    first = run_job(job("sft", paths, tmp_path / "out", "--max_steps 3 --resume auto"))
    again = run_job(job("sft", paths, tmp_path / "out", "--max_steps 3 --resume auto"))
    assert first == again
    assert "the run was finished: nothing is left to do" in capfd.readouterr().out


def test_starting_anew_removes_the_states_of_the_run_before(stopped_run: Path, paths: dict[str, str]) -> None:
    lines = run_job(job("sft", paths, stopped_run, "--max_steps 2 --overwrite_output_dir"))
    assert [line["step"] for line in lines] == [0, 1, 2]
    assert sorted(path.name for path in (stopped_run / "state").iterdir()) == ["latest", "step-1", "step-2"]


def test_two_runs_in_one_folder(paths: dict[str, str], tmp_path: Path, process_group: torch.device) -> None:
    (tmp_path / "out").mkdir()
    with RunLock(tmp_path / "out"):
        text = refusal(paths, tmp_path / "out", "")
    assert f"is in use by process {os.getpid()} on " in text
    assert "wait for it, stop it, or choose another folder" in text
    assert run_job(job("sft", paths, tmp_path / "out", "--max_steps 1"))


def test_a_disk_that_is_too_small(
    paths: dict[str, str], tmp_path: Path, process_group: torch.device, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    free = 10 * 2**20
    usage = type("Usage", (), {"free": property(lambda _: free)})
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: usage())
    out = tmp_path / "out"
    run_job(job("sft", paths, out, "--max_steps 2"))
    free = 2**18
    with pytest.raises(TrainingFault) as caught:
        run_job(job("sft", paths, out, "--max_steps 4 --resume auto --resume_override"))
    assert "the state of step 3 needs about 0.5 MiB in" in str(caught.value)
    assert "of which 0.2 MiB are free; delete files there" in str(caught.value)
    assert "--resume auto goes on after step 2" in str(caught.value)
    lines = run_job(job("sft", paths, out, "--max_steps 4 --resume auto --resume_override --on_full_disk continue"))
    assert [line["step"] for line in lines] == list(range(5))
    assert "training goes on without saving" in capfd.readouterr().out
    assert sorted(path.name for path in (out / "state").iterdir()) == ["latest", "step-1", "step-2"]


@pytest.mark.parametrize("place", ["state.critic", "state.manifest", "model.sync"])
def test_a_disk_that_fills_up_while_writing_costs_nothing_that_was_saved(
    place: str, forks: Forks, paths: dict[str, str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    count = 5 if place == "model.sync" else 3
    failed = forks.run(job("ppo", paths, out, "--max_steps 4"), fault=f"{place}:{count}:full")
    assert failed.status == 1, failed.text
    assert "Traceback" not in failed.text
    what = "the model actor" if place == "model.sync" else "the state of step 3"
    assert f"error: {what} could not be written to " in failed.text
    assert "(the disk is full; " in failed.text
    assert [path.name for path in out.rglob(".tmp-*")] == []
    assert forks.run(job("ppo", paths, out, "--max_steps 4 --resume auto")).status == 0
    assert [line["step"] for line in read_metrics(out)] == [1, 2, 3, 4]

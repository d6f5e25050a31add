"""The quickstart's launches: valid command lines, one after the other, with clear failures."""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from quickstart import stages
from quickstart.options import Options
from quickstart.stages import Stage, StageFailed, launch_words, run_stage
from quickstart.summaries import FAST, FULL, Preset, plan
from quickstart.surroundings import prepare_output


def options(output: Path) -> Options:
    return Options(output=output, fast=False, seed=11, overwrite=False)


def words_of(stage: Stage) -> list[str]:
    """The program's own words in the launch command."""
    words = launch_words(stage, num_ranks=2)
    return words[words.index(stage.program) + 1 :]


@pytest.mark.parametrize("preset", [FULL, FAST], ids=["full", "fast"])
@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_every_launch_is_accepted_by_its_program(preset: Preset, num_ranks: int, tmp_path: Path) -> None:
    sft, reward, kl, wasserstein = plan(preset, options(tmp_path), num_ranks=num_ranks)

    sft_config = parse_sft_config(words_of(sft))
    reward_config = parse_reward_config(words_of(reward))
    kl_config = parse_ppo_config(words_of(kl), regularizer=DivergenceConfig)
    wasserstein_config = parse_ppo_config(words_of(wasserstein), regularizer=WassersteinConfig)

    # each step starts from what the one before wrote, and both PPO runs from the same folders
    assert reward_config.training.model_name_or_path == sft_config.output.output_dir
    for config in (kl_config, wasserstein_config):
        assert config.models.actor_model_name_or_path == sft_config.output.output_dir
        assert config.models.critic_model_name_or_path == reward_config.output.output_dir
        assert config.batches(num_ranks).prompts == preset.ppo_batch
        assert config.runtime.seed == 11
    assert kl_config.rollout == wasserstein_config.rollout
    assert kl_config.ppo == wasserstein_config.ppo
    assert sft_config.training.per_device_train_batch_size * num_ranks == preset.sft_batch
    assert len({stage.flags["output_dir"] for stage in (sft, reward, kl, wasserstein)}) == 4
    for stage in (sft, reward, kl, wasserstein):
        assert (stage.folder / stage.program).is_file()


def test_launch_is_a_list_of_words_with_its_own_port(tmp_path: Path) -> None:
    stage = plan(FULL, options(tmp_path / "a folder"), num_ranks=2)[0]

    words = launch_words(stage, num_ranks=2)

    assert words[1:3] == ["--num_gpus", "2"]
    assert 1024 <= int(words[words.index("--master_port") + 1]) < 65536
    assert str(tmp_path / "a folder" / "sft") in words


def run_python(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Path]:
    """Run a stage whose program is a line of Python; returns the screen and the log."""
    monkeypatch.setattr(stages, "launch_words", lambda stage, *, num_ranks: [sys.executable, "-c", code])
    screen = io.StringIO()
    log = tmp_path / "logs" / "stage.log"
    stage = Stage("stage", "Step 9: a test", tmp_path, "main.py", {})
    try:
        run_stage(stage, log, Console(file=screen, width=100), num_ranks=2)
    except StageFailed:
        screen.write("[failed]")
    return screen.getvalue(), log


def test_output_goes_to_the_log_with_the_command_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen, log = run_python("import sys; print('one'); print('two', file=sys.stderr)", tmp_path, monkeypatch)

    lines = log.read_text().splitlines()
    assert lines[0].startswith(f"# cd {tmp_path} && ")
    assert set(lines[1:]) == {"one", "two"}
    assert "Step 9: a test" in screen
    assert "[failed]" not in screen


def test_failed_stage_shows_its_last_lines_command_and_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sys; [print(f'line {i}.') for i in range(40)]; sys.exit(3)"

    screen, log = run_python(code, tmp_path, monkeypatch)

    assert "[failed]" in screen
    assert "status 3" in screen
    assert str(log) in screen
    assert f"command: cd {tmp_path} && {sys.executable}" in screen
    assert "line 39." in screen
    assert "line 20." in screen
    assert "line 19." not in screen


def test_stage_does_not_outlive_an_interruption(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive = tmp_path / "alive"
    child = f"import time, pathlib\nwhile True: pathlib.Path({str(alive)!r}).touch(); time.sleep(0.05)"
    # the launcher's ranks are children of children
    code = f"import subprocess, sys; print('ready', flush=True); subprocess.run([sys.executable, '-c', {child!r}])"
    monkeypatch.setattr(stages, "NOISE", InterruptingPattern(alive))

    with pytest.raises(KeyboardInterrupt):
        run_python(code, tmp_path, monkeypatch)

    time.sleep(0.3)
    alive.unlink(missing_ok=True)
    time.sleep(0.3)
    assert not alive.exists()


class InterruptingPattern:
    """Stands in for Ctrl-C at the first line of output, once the grandchild is at work."""

    def __init__(self, alive: Path) -> None:
        self.alive = alive

    def search(self, line: str) -> None:
        assert line == "ready\n"
        deadline = time.monotonic() + 20
        while not self.alive.exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        raise KeyboardInterrupt


def test_only_the_quickstarts_own_files_are_removed(tmp_path: Path) -> None:
    prepare_output(tmp_path, ("sft", "logs", "summary.json"))
    for name in ("sft", "logs", "mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    (tmp_path / "summary.json").touch()

    prepare_output(tmp_path, ("sft", "logs", "summary.json"))

    assert sorted(path.name for path in tmp_path.iterdir()) == [".quickstart", "mine"]

"""What the documents claim: every metric is defined, every published command is a command."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.rewards import LearnedRewardConfig, UnitTestRewardConfig
from dschat.config.steps import parse_ppo_config, parse_reward_config, parse_sft_config
from tests.launch import REPOSITORY
from toys.jobs import Job, make_folders, ppo_arguments, run_job, supervised_arguments, write_problems, write_text

PIPELINE = REPOSITORY / "applications/DeepSpeed-Chat"
MANUAL = (PIPELINE / "README.md").read_text()
OPTIONS = (  # all with metrics of their own
    "--ngram 2 --normalize_rewards --penalty_target 1 --entropy_coef 0.1 --ppo_epochs 2 --early_stop_kl 1"
)


def parser_of(step: str, program: str) -> Callable[[list[str]], Any]:
    if step.startswith("step1"):
        return parse_sft_config
    if step.startswith("step2"):
        return parse_reward_config
    section = WassersteinConfig if "wpr" in program else DivergenceConfig
    reward = UnitTestRewardConfig if "apps" in program else LearnedRewardConfig
    return lambda words: parse_ppo_config(words, regularizer=section, reward=reward)


def test_every_metric_of_every_step_is_in_the_glossary(tmp_path: Path, process_group: torch.device) -> None:
    paths = make_folders(tmp_path)
    text = f"--unsupervised_dataset_name {write_text(tmp_path)}"
    jobs = [
        Job("sft", supervised_arguments(paths, "sft", tmp_path / "1", "--max_steps 1")),
        Job("reward", supervised_arguments(paths, "sft", tmp_path / "2", "--max_steps 1")),
        Job("ppo", ppo_arguments(paths, tmp_path / "3", f"--max_steps 1 --eval_steps 1 {OPTIONS} {text}")),
        Job("wpr", ppo_arguments(paths, tmp_path / "4", "--max_steps 1 --transport capped --top_k 4 --epsilon 1")),
        Job(
            "apps",
            ppo_arguments(
                paths | {"data": str(write_problems(tmp_path / "problems.jsonl"))}, tmp_path / "5",
                "--data_format codeparrot/apps --apps_prompt published --max_steps 1 --eval_steps 1",
            ),
        ),
    ]  # fmt: skip
    names = {name.removeprefix("eval_") for job in jobs for line in run_job(job) for name in line}
    assert len(names) > 30
    assert sorted(name for name in names if f"`{name}`" not in MANUAL) == []


def commands_in(text: str) -> list[tuple[str, list[str]]]:
    """The training commands of a document: program and arguments."""
    joined = re.sub(r"\\\n\s*", " ", text)
    found = re.findall(r"^(?:exec )?deepspeed .*?(main\w*\.py) (.*)$", joined, flags=re.MULTILINE)
    return [(program, [w for w in shlex.split(rest) if w != "$@"]) for program, rest in found]


@pytest.mark.parametrize("script", sorted(PIPELINE.glob("training/*/training_scripts/*.sh")), ids=lambda p: p.name)
def test_every_training_script_is_a_valid_command(script: Path) -> None:
    commands = commands_in(script.read_text())
    assert len(commands) == 1
    program, words = commands[0]
    step = script.parents[1]
    assert (step / program).is_file()
    config = parser_of(step.name, program)(words)
    assert config.output.output_dir


def test_the_recipes_of_the_manual_are_valid_commands() -> None:
    commands = commands_in(MANUAL)
    assert [program for program, _ in commands] == ["main.py", "main.py", "main_wpr.py", "main_apps.py"]
    for (program, words), step in zip(commands, ("step1", "step2", "step3", "step3"), strict=True):
        parser_of(step, program)(words)


def test_the_readme_shows_the_numbers_of_the_quickstart_beside_it() -> None:
    measured = json.loads((REPOSITORY / "docs/quickstart.json").read_text())
    readme = (REPOSITORY / "README.md").read_text()
    before, after = measured["sft"]["eval_loss_before"], measured["sft"]["eval_loss_after"]
    assert f"| {before:.2f} | {after:.2f} |" in readme
    assert f"| {measured['reward']['eval_accuracy']:.2f} |" in readme
    assert after <= 0.75 * before
    assert measured["reward"]["eval_accuracy"] >= 0.75
    for run in measured["ppo"].values():
        gain = (run["reward_last"] - run["reward_first"]) / run["reward_first_std"]
        assert f"| {run['reward_first']:.2f} | {run['reward_last']:.2f} (+{gain:.2f}" in readme
        assert gain >= 0.5


def test_the_readme_shows_the_pass_rates_of_the_code_task_quickstart() -> None:
    measured = json.loads((REPOSITORY / "docs/quickstart_apps.json").read_text())
    readme = (REPOSITORY / "README.md").read_text()
    for measure in ("strict_accuracy", "accuracy"):
        rates = measured[measure]["all"]
        low, high = rates["sft_interval"]
        after = ", ".join(f"{rate:.3f}" for rate in rates["ppo"].values())
        assert re.search(rf"{rates['sft']:.3f} \([^)]*{low:.3f} to {high:.3f}\) \| {after} \|", readme)
        assert min(rates["ppo"].values()) > high
        assert f"{rates['problems']} held-out problems" in readme


def test_every_link_of_the_documents_leads_somewhere() -> None:
    documents = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", PIPELINE / "README.md"]
    documents += sorted((REPOSITORY / "docs").glob("*.md"))
    missing = [
        f"{document.name}: {target}"
        for document in documents
        for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", document.read_text())
        if not (document.parent / target).exists()
    ]
    assert missing == []

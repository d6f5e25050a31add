"""CONTRIBUTING's recipes, followed to the letter in a copy of the package."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.launch import REPOSITORY

PLACE = re.compile(
    r"(?:In\s+`(?P<old>[^`]+\.py)`,\s+(?:at the end|above\s+`(?P<anchor>[^`]+)`)|New\s+file\s+`(?P<new>[^`]+\.py)`):"
    r"\n\n```python\n(?P<code>.*?)```\n",
    re.DOTALL,
)
CONFTEST = """import pytest

@pytest.fixture
def process_group():
    from dschat.runtime.distributed import initialize

    return initialize(-1)
"""
RECIPES = ("flag", "regularizer", "reward source", "dataset", "stage")


@dataclass(frozen=True)
class Step:
    """One block of code, and where it goes."""

    file: str
    anchor: str | None
    """The line above which it goes; None at the end, or for a new file."""
    code: str


def recipe(title: str) -> list[Step]:
    """The blocks of one recipe, in order."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    section = text.split(f"## Adding a {title}\n")[1].split("\n## ")[0]
    found = [Step(m["old"] or m["new"], m["anchor"], m["code"]) for m in PLACE.finditer(section)]
    assert len(found) == section.count("```python"), f"a block of 'Adding a {title}' does not say where it goes"
    return found


def follow(step: Step, root: Path) -> Path:
    """Do what one step says below `root`, and return the file."""
    file = root / step.file
    if step.anchor is not None:
        before, found, after = file.read_text().partition(f"\n{step.anchor}")
        assert found, f"{step.file} has no line that begins with {step.anchor!r}"
        file.write_text(f"{before}\n{step.code}{found[1:]}{after}")
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text((file.read_text() if file.exists() else "") + step.code)
    return file


def test_recipes_work_as_written(tmp_path: Path) -> None:
    package = REPOSITORY / "applications" / "DeepSpeed-Chat" / "dschat"
    shutil.copytree(package, tmp_path / "dschat", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "conftest.py").write_text(CONFTEST)
    steps = [step for title in RECIPES for step in recipe(title)]
    files = [follow(step, tmp_path) for step in steps]
    tests = [str(file) for file in files if file.name.startswith("test_")]
    assert len(tests) == len(RECIPES)
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "check", "--fix", "--config", REPOSITORY / "pyproject.toml", *files],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert linted.returncode == 0, linted.stdout
    path = os.pathsep.join(map(str, (tmp_path, REPOSITORY / "scripts", REPOSITORY)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), "--import-mode",
         "importlib", *tests],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    used = subprocess.run(
        [sys.executable, "-m", "dschat.programs.ppo_jeffreys", "--help"],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert used.returncode == 0 and "--largest_log_ratio" in used.stdout

"""The wheel holds all that a user runs: it is built here, and its programs answer without this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import dschat
from tests.launch import REPOSITORY

PACKAGE = Path(dschat.__file__).parent
PUBLISHED = (
    "inference/inference_with_rewards.py",
    "evaluation/gpt4-eval.py",
    "applications/DeepSpeed-Chat/training/step3_rlhf_finetuning/main_wpr.py",
)
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
ALL_HELPS = """
import contextlib, io, pkgutil, runpy, sys
import dschat, dschat.programs

assert dschat.__file__.startswith(sys.argv[1]), dschat.__file__
for program in pkgutil.iter_modules(dschat.programs.__path__):
    name = f"dschat.programs.{program.name}"
    sys.argv[1:] = ["--help"]
    text, status = io.StringIO(), None
    with contextlib.redirect_stdout(text):
        try:
            runpy.run_module(name, run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            status = ended.code or 0
    assert status == 0 and text.getvalue().startswith("usage: "), (name, status, text.getvalue())
    print(program.name)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of the files alone, so that nothing of earlier builds gets in and nothing is left behind."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    package = source / PACKAGE.relative_to(REPOSITORY)
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    built = subprocess.run(
        [sys.executable, "-c", BUILD, str(folder)], cwd=source, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr[-3000:]
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path) -> Path:
    """The folder that the wheel was unpacked to."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(wheel.parent / "site")
    return wheel.parent / "site"


def run_apart(installed: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder with the wheel and the libraries on its path, and no .pth file that leads elsewhere."""
    libraries = [path for path in sys.path if Path(path).name in ("site-packages", "dist-packages")]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    variables["PYTHONPATH"] = os.pathsep.join([str(installed), *libraries])
    return subprocess.run(
        [sys.executable, "-S", *words], cwd=folder, env=variables, capture_output=True, text=True, check=False
    )


def files_of_the_package() -> set[str]:
    """What git knows of the package; everything in its folder where this is no checkout."""
    listed = subprocess.run(["git", "ls-files"], cwd=PACKAGE, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return {f"dschat/{name}" for name in listed.stdout.splitlines()}
    found = (path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"dschat/{path.relative_to(PACKAGE)}" for path in found}


def test_every_file_of_the_package_is_in_the_wheel(wheel: Path) -> None:
    files = files_of_the_package()
    assert {"dschat/py.typed", "dschat/judging/report_template.html"} < files
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert sorted(files - inside) == []


@pytest.mark.parametrize("program", PUBLISHED)
def test_published_programs_answer_far_from_the_checkout(program: str, installed: Path, tmp_path: Path) -> None:
    copied = Path(shutil.copy(REPOSITORY / program, tmp_path))
    answered = run_apart(installed, tmp_path, copied.name, "--help")
    assert answered.returncode == 0, answered.stderr[-3000:]
    assert answered.stdout.startswith(f"usage: {copied.name}")


def test_every_program_of_the_package_answers(installed: Path, tmp_path: Path) -> None:
    answered = run_apart(installed, tmp_path, "-c", ALL_HELPS, str(installed))
    assert answered.returncode == 0, answered.stderr[-3000:]
    names = {path.stem for path in (PACKAGE / "programs").glob("*.py")} - {"__init__"}
    assert set(answered.stdout.split()) == names


def test_without_the_wheel_there_is_no_package(tmp_path: Path) -> None:
    """What the tests above rest on: nothing else leads to this checkout."""
    answered = run_apart(tmp_path, tmp_path, "-c", "import dschat")
    assert "ModuleNotFoundError: No module named 'dschat'" in answered.stderr

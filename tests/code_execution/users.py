"""Who tests run the sandbox as: whoever runs the tests, and a plain user beside root."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dschat
from dschat.code_execution.python_files import numpy_folder, reachable_by_others
from tests.launch import REPOSITORY

NOBODY = 65534
USERS = ["root", "plain user"] if os.geteuid() == 0 else ["this user"]
RUNGS = ["bwrap", "landlock"]
SECRET = "sesame-8c1f"  # in the environment of whoever opens a sandbox

_LANDLOCK_VERSION = "import ctypes; print(ctypes.CDLL(None).syscall(444, None, 0, 1))"
_VERSION = "import sys; print(*sys.version_info[:2])"
_SYSTEM_PYTHONS = tuple(map(Path, ("/usr/bin/python3", "/usr/local/bin/python3")))


def run_as(
    user: str, *arguments: str, environment: Mapping[str, str] | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run Python with these arguments as one of USERS, in the repository."""
    python, folders = sys.executable, [REPOSITORY, Path(dschat.__file__).parents[1]]
    options: dict[str, Any] = {}
    if user == "plain user":
        python, numpy = _python_of_a_plain_user()
        folders += [numpy] if numpy else []
        options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    variables = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(map(str, folders)),
        "DSCHAT_TEST_SECRET": SECRET,
        **(environment or {}),
    }
    command: Sequence[str] = [str(python), "-B", *arguments]
    return subprocess.run(
        command, cwd=REPOSITORY, env=variables, capture_output=True, text=True, timeout=timeout, check=False, **options
    )


def why_not(rung: str, user: str) -> str | None:
    """Why a rung cannot be tried as a user on this machine, found out without the code under test; None if it can."""
    if user == "plain user":
        if not reachable_by_others(REPOSITORY / "tests" / "code_execution" / "driver.py"):
            return "the repository lies where a plain user cannot read"
        if _python_of_a_plain_user() is None:
            return "no Python 3.11 or later that a plain user can start"
    if rung == "bwrap":
        if shutil.which("bwrap") is None:
            return "bubblewrap is not installed"
        switch = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if user == "plain user" else {}
        command = ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "true"]
        probe = subprocess.run(command, capture_output=True, text=True, check=False, cwd="/", **switch)
        return f"bubblewrap does not work here: {probe.stderr.strip()}" if probe.returncode else None
    if rung == "landlock":
        probe = subprocess.run([sys.executable, "-c", _LANDLOCK_VERSION], capture_output=True, text=True, check=True)
        return "the kernel lacks Landlock" if int(probe.stdout) < 1 else None
    return None


@functools.cache
def _python_of_a_plain_user() -> tuple[Path, Path | None] | None:
    """An interpreter that every user can start, and the folder of a numpy that works with it."""
    numpy = numpy_folder()
    for python in (Path(sys.executable).resolve(), *_SYSTEM_PYTHONS):
        if not python.exists() or not reachable_by_others(python.resolve()):
            continue
        said = subprocess.run([python, "-c", _VERSION], capture_output=True, text=True, check=False).stdout.split()
        version = tuple(map(int, said))
        if version == sys.version_info[:2] and numpy is not None and reachable_by_others(numpy / "__init__.py"):
            return python, numpy.parent
        if version >= (3, 11):
            return python, None
    return None

"""Landlock's rules in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.code_execution.users import USERS, why_not

CODE = """
import ctypes, os, sys
from dschat.code_execution.inside.landlock import LandlockRuleset
from dschat.code_execution.inside.seccomp import set_no_new_privileges
folder = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
readable = [folder + "/open", folder + "/single", folder + "/missing"]
rules = LandlockRuleset(libc, readable=readable, writable=[folder + "/writable"])
set_no_new_privileges(libc)
rules.apply()

def works(action, *arguments):
    try:
        action(*arguments)
    except PermissionError:
        return False
    return True

def write(path):
    os.close(os.open(path, os.O_WRONLY))

print(works(open, folder + "/open/file"), works(os.listdir, folder + "/open"), works(open, folder + "/single"))
print(works(open, folder + "/shut/file"), works(os.listdir, folder), works(write, folder + "/open/file"),
      works(os.mkdir, folder + "/open/new"), works(os.truncate, folder + "/open/file", 0),
      works(os.unlink, folder + "/open/file"), works(os.rename, folder + "/open/file", folder + "/open/other"))
print(works(write, folder + "/writable"), works(os.unlink, folder + "/writable"))
"""


def test_only_listed_paths_can_be_opened(tmp_path: Path) -> None:
    if reason := why_not("landlock", USERS[0]):
        pytest.skip(reason)
    for folder in ("open", "shut"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "file").write_text("content")
    (tmp_path / "single").touch()
    (tmp_path / "writable").touch()
    run = subprocess.run([sys.executable, "-c", CODE, str(tmp_path)], capture_output=True, text=True, check=True)
    allowed, denied, writable = (line.split() for line in run.stdout.splitlines())
    assert set(allowed) == {"True"}
    assert set(denied) == {"False"}
    assert writable == ["True", "False"]

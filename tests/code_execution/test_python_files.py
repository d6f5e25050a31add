"""What a sandbox shows of the host."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy

import dschat
from dschat.code_execution.python_files import interpreter, python_paths, reachable_by_others
from tests.launch import REPOSITORY


def visible(path: Path) -> bool:
    return any(path == shown or shown in path.parents for shown in python_paths())


def test_python_and_numpy_are_there() -> None:
    for path in (interpreter(), Path(json.__file__), Path(os.__file__), Path(numpy.__file__)):
        assert visible(path.resolve())


def test_homes_data_and_the_rest_of_this_package_are_not() -> None:
    package = Path(dschat.__file__).resolve().parent
    hidden = [Path("/etc/passwd"), Path("/tmp"), Path("/proc"), Path.home(), REPOSITORY, package, package / "errors.py"]
    hidden += [REPOSITORY / "tests", package / "data" / "apps.py", numpy_neighbour()]
    assert [path for path in hidden if visible(path)] == []


def numpy_neighbour() -> Path:
    """Another package of the same environment."""
    return Path(numpy.__file__).resolve().parents[1] / "torch"


def test_no_path_lies_in_another_and_all_are_real() -> None:
    paths = python_paths()
    assert all(path.exists() and path == path.resolve() for path in paths)
    assert not [path for path in paths if set(path.parents) & set(paths)]


def test_a_folder_that_others_may_not_enter_hides_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch(mode=0o644)
    (tmp_path / "folder").chmod(0o700)
    assert not reachable_by_others(tmp_path / "folder" / "file")
    assert reachable_by_others(Path("/bin/sh").resolve())

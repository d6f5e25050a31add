"""What a Python program needs of the host's files, and nothing else of them."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

PACKAGES = Path(__file__).resolve().parents[2]
"""The folder that the package dschat lies in."""

_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/etc/alternatives")
"""Shared libraries and how they are found. Not all of /usr: images keep whole applications with their data there."""


def interpreter() -> Path:
    """The interpreter itself, not a virtual environment's link to it."""
    return Path(sys.executable).resolve()


def numpy_folder() -> Path | None:
    """The folder of the numpy package, None if it is not installed. Does not import it."""
    spec = importlib.util.find_spec("numpy")
    return Path(spec.origin).resolve().parent if spec and spec.origin else None


def python_paths() -> list[Path]:
    """Files and folders that must be readable: libraries, standard library, numpy if installed, what runs inside.

    None lies in another, none is a link or missing.
    """
    wanted = [Path(path) for path in _SYSTEM]
    wanted += [interpreter(), Path(os.__file__).parent]
    wanted += [
        Path(prefix) / folder for prefix in (sys.base_prefix, sys.base_exec_prefix) for folder in ("lib", "lib64")
    ]
    numpy = numpy_folder()
    if numpy is not None:
        wanted += [numpy, numpy.with_name("numpy.libs")]
    package = PACKAGES / "dschat"
    wanted += [package / "__init__.py", package / "code_execution"]
    real = sorted({path.resolve() for path in wanted if path.exists()})
    return [path for path in real if not any(parent in real for parent in path.parents)]


def root_links() -> dict[Path, Path]:
    """Links at the root of the file system that lead to libraries, such as /lib to usr/lib."""
    return {path: path.readlink() for path in map(Path, _SYSTEM) if path.is_symlink()}


def reachable_by_others(path: Path) -> bool:
    """Whether every user can get to a path and read it, as far as its mode and its parents' modes tell."""
    modes = [parent.stat().st_mode for parent in path.parents]
    return all(mode & 0o001 for mode in modes) and bool(path.stat().st_mode & 0o004)

"""The three ways to start a zygote, from the safest down: bubblewrap, Landlock with seccomp, nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from dschat.code_execution.inside.protocol import Settings
from dschat.code_execution.python_files import (
    PACKAGES,
    interpreter,
    numpy_folder,
    python_paths,
    reachable_by_others,
    root_links,
)
from dschat.code_execution.spare_user import SpareUser
from dschat.code_execution.zygote_process import SandboxFault, Zygote

_START = (
    "import sys; sys.dont_write_bytecode = True; library = sys.path[1:]; sys.path[:] = [*library, {packages!r}]; "
    "from dschat.code_execution.inside.zygote import main; main(library)"
)
"""In place of options such as -B and -P, which programs would see in sys.flags."""
_ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",  # sets come out in the same order every time, so that a verdict can be repeated
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",  # each arena takes 64 MiB of a program's address space
}
"""Of a zygote, which clears it before the first program."""
_NOBODY = "65534"


@dataclass(frozen=True)
class Rung:
    """One way to start zygotes."""

    name: str
    start: Callable[[], Zygote]
    """Raises SandboxFault."""
    user: SpareUser | None
    """Whom programs run as; None means the user of this process."""
    contains: bool = True
    """False where a program may do whatever its user may."""
    limits_threads: bool = True
    """False where the kernel would count all of the user's processes with the program's threads."""

    def describe(self, hello: Mapping[str, object]) -> str:
        """One line for logs and manifests, given what a zygote says about itself."""
        words = [self.name]
        if hello["landlock_abi"] is not None:
            words.append(f"Landlock ABI {hello['landlock_abi']}")
        if self.contains:
            words.append("seccomp")
        words.append(f"user {self.user.uid}" if self.user else "the user who started it")
        if not self.limits_threads:
            words.append("number of threads not limited")
        words.append(f"numpy {hello['numpy']}" if hello["numpy"] else "without numpy")
        return ", ".join(words)


def bubblewrap(user: SpareUser | None) -> Rung:
    """Namespaces without network, host files and /proc, and seccomp; SandboxFault where bwrap is missing.

    Args:
        user: whom programs run as; None where only root of a user namespace can change that.
    """
    program = shutil.which("bwrap")
    if program is None:
        raise SandboxFault("bwrap is not installed")
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
    namespaces = _namespaces(user)
    if user is None and not _works([program, *namespaces, "--disable-userns", *_file_system()]):
        namespaces.remove("--disable-userns")  # bubblewrap before 0.8, and see its issue 798; seccomp forbids it anyway
    # started by a user, the namespace counts the zygote among the child's tasks
    settings = _settings(user, other_tasks=0 if user else 1)
    words = [program, *namespaces, *_file_system(), "--"]
    return Rung(f"bubblewrap {said[-1] if said else '?'}", _starter(words, settings), user)


def landlock(user: SpareUser | None) -> Rung:
    """Landlock, seccomp and limits around an ordinary process."""
    paths = python_paths()
    settings = replace(
        _settings(user, other_tasks=0 if user else None),
        keep_read_access=user is not None and not all(map(reachable_by_others, paths)),
        readable_paths=[*map(str, paths), "/dev/urandom"],
        writable_paths=["/dev/null"],
    )
    return Rung("no namespaces", _starter([], settings), user, limits_threads=user is not None)


def unsandboxed(user: SpareUser | None) -> Rung:
    """Limits, an empty environment, and an end to whatever a program leaves running. No containment."""
    settings = replace(
        _settings(user, other_tasks=0 if user else None),
        seccomp=False,
        keep_read_access=user is not None and not all(map(reachable_by_others, python_paths())),
    )
    start = _starter([], settings)
    return Rung("no sandbox", start, user, contains=False, limits_threads=user is not None)


def _settings(user: SpareUser | None, *, other_tasks: int | None) -> Settings:
    numpy = numpy_folder()
    return Settings(
        control_fd=-1,
        uid=user.uid if user else None,
        other_tasks=other_tasks,
        module_folders=[str(numpy.parent)] if numpy else [],
    )


def _starter(prefix: Sequence[str], settings: Settings) -> Callable[[], Zygote]:
    start = _START.format(packages=str(PACKAGES))

    def command(control_fd: int) -> list[str]:
        words = json.dumps(asdict(replace(settings, control_fd=control_fd)))
        return [*prefix, str(interpreter()), "-S", "-c", start, words]

    return lambda: Zygote(command, _ENVIRONMENT)


def _namespaces(user: SpareUser | None) -> list[str]:
    """No --die-with-parent: it would end the sandbox with the thread that opened it. The socket's end does instead."""
    words = "--unshare-pid --unshare-net --unshare-ipc --unshare-uts --unshare-cgroup-try".split()
    words += "--new-session --as-pid-1 --cap-drop ALL".split()
    if user is None:
        words += ["--unshare-user", "--uid", _NOBODY, "--gid", _NOBODY, "--disable-userns"]
    else:
        # a user namespace of root would map to root: children switch to the spare user instead
        words += "--cap-add CAP_SETUID --cap-add CAP_SETGID --cap-add CAP_KILL".split()
    return words


def _file_system() -> list[str]:
    """Nothing but what Python needs, nothing writable, no /proc."""
    paths = python_paths()
    devices = [Path("/dev/null"), Path("/dev/urandom")]
    parents = sorted({parent for path in [*paths, *devices] for parent in path.parents} - {Path("/")})
    words = []
    for parent in parents:
        words += ["--perms", "0755", "--dir", str(parent)]  # made by a bind they could be entered by root alone
    for path in paths:
        words += ["--ro-bind", str(path), str(path)]
    for link, target in root_links().items():
        words += ["--symlink", str(target), str(link)]
    for device in devices:
        words += ["--dev-bind", str(device), str(device)]
    return [*words, "--remount-ro", "/", "--chdir", "/"]


def _works(command: Sequence[str]) -> bool:
    words = [*command, "--", str(interpreter()), "-S", "-c", ""]
    return subprocess.run(words, capture_output=True, check=False).returncode == 0

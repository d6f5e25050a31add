"""Runs one untrusted program, contained: the ladder of sandboxes, and how one is chosen."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Literal, Self

from dschat.code_execution.execute import execute
from dschat.code_execution.records import DEFAULT_LIMITS, Execution, Job, Limits, Sandbox, Status
from dschat.code_execution.rungs import Rung, bubblewrap, landlock, unsandboxed
from dschat.code_execution.self_test import check
from dschat.code_execution.spare_user import SpareUser, can_switch_user
from dschat.code_execution.zygote_process import SandboxFault, Zygote
from dschat.errors import UserError

__all__ = ["Execution", "Job", "Limits", "Sandbox", "Status", "open_sandbox"]

logger = logging.getLogger(__name__)

Mode = Literal["auto", "bwrap", "landlock", "none"]
_LADDER: dict[str, Callable[[SpareUser | None], Rung]] = {"bwrap": bubblewrap, "landlock": landlock}


def open_sandbox(mode: Mode = "auto", *, allow_unsandboxed: bool = False) -> Sandbox:
    """Open one slot for untrusted programs.

    Args:
        mode: auto takes bubblewrap, or else Landlock with seccomp: the first that passes a self-test of benign
            programs and attacks; bwrap and landlock take that one or none; none does without, if that is allowed.
        allow_unsandboxed: run programs with limits alone where nothing better works, or mode says none.
    Raises:
        UserError: no sandbox works and programs must not run without; it says why and what to do.
    """
    reasons = []
    for name in [] if mode == "none" else list(_LADDER) if mode == "auto" else [mode]:
        try:
            return _open(_LADDER[name])
        except SandboxFault as fault:
            reasons.append(f"{name}: {fault}")
    why = "; ".join(reasons) or "--code_sandbox none"
    if not allow_unsandboxed:
        raise UserError(
            f"refusing to run model-written code without a sandbox ({why}): install bubblewrap (apt-get install "
            "bubblewrap), allow user namespaces or use a kernel with Landlock, or pass --allow_unsandboxed if this "
            "machine holds nothing of value"
        )
    logger.warning("model-written code runs without a sandbox (%s): it can do what its user may", why)
    return _open(unsandboxed)


def _open(build: Callable[[SpareUser | None], Rung]) -> Sandbox:
    """A sandbox of one rung that has passed its self-test; SandboxFault if it has not."""
    with ExitStack() as undo:
        try:
            user = SpareUser() if can_switch_user() else None
        except OSError as error:
            raise SandboxFault(str(error)) from error
        if user is not None:
            undo.callback(user.release)
        rung = build(user)
        sandbox = ZygoteSandbox(rung, release=user.release if user else None)
        undo.pop_all()
        undo.callback(sandbox.close)
        if rung.contains:
            check(sandbox, numpy=bool(sandbox.hello["numpy"]))
        undo.pop_all()
        return sandbox


class ZygoteSandbox:
    """A sandbox whose programs run in forks of one zygote, which is replaced when it fails."""

    def __init__(self, rung: Rung, *, release: Callable[[], None] | None = None) -> None:
        """Start the first zygote; SandboxFault if it does not come up.

        Args:
            rung: how to start zygotes.
            release: called once at the end.
        """
        self._rung, self._release = rung, release
        self._lock = threading.Lock()
        self._closed = False
        self._zygote: Zygote | None = rung.start()
        self.hello = self._zygote.hello
        self.description = rung.describe(self.hello)

    def run(self, job: Job, limits: Limits = DEFAULT_LIMITS) -> Execution:
        """See Sandbox."""
        began = time.monotonic()
        with self._lock:
            if self._closed:
                return _fault("the sandbox is closed", began)
            try:
                self._zygote = self._zygote or self._rung.start()
                return execute(self._zygote, job, limits, killable_from_inside=not self._rung.contains)
            except SandboxFault as fault:
                self._drop_zygote()
                return _fault(str(fault), began)
            except BaseException:  # such as Ctrl-C: the zygote is in the middle of a job
                self._drop_zygote()
                raise

    def close(self) -> None:
        """See Sandbox."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._drop_zygote()
                if self._release is not None:
                    self._release()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _drop_zygote(self) -> None:
        if self._zygote is not None:
            self._zygote.kill()
            self._zygote = None


def _fault(message: str, began: float) -> Execution:
    return Execution(Status.INFRA_ERROR, b"", message, cpu_seconds=0.0, wall_seconds=time.monotonic() - began)

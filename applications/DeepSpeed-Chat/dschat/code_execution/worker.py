"""A grading worker: its own process, which holds the expected outputs and one sandbox. Started by pool.py.

One JSON object a line: settings first, answered by the sandbox's description or the reason why there is none; then a
program with its problem's tests, answered by its report, until standard input ends.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import Any, BinaryIO

from dschat.code_execution.apps_tests import GradingRules, grade
from dschat.code_execution.long_integers import load_json
from dschat.code_execution.sandbox import open_sandbox
from dschat.errors import UserError

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Serve requests until standard input ends or the parent, whose process id is the argument, dies."""
    _die_with(int(sys.argv[1]))
    # what the sandbox warns of is in its description, which the trainer shows once
    logging.getLogger("dschat").addHandler(logging.NullHandler())
    answers = _private_output()
    settings = json.loads(sys.stdin.buffer.readline())
    try:
        sandbox = open_sandbox(settings["sandbox"], allow_unsandboxed=settings["allow_unsandboxed"])
    except UserError as error:
        _answer(answers, {"refused": str(error)})
        return
    rules = GradingRules(**settings["rules"])
    with sandbox:
        _answer(answers, {"sandbox": sandbox.description})
        while line := sys.stdin.buffer.readline():
            request = load_json(line)
            _answer(answers, grade(request["program"], request["tests"], rules, sandbox).as_json())


def _die_with(parent: int) -> None:
    """Ask the kernel to end this process when the thread that started it ends, and leave if it has ended already."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the trainer is gone")


def _private_output() -> BinaryIO:
    """Standard output under a descriptor that no child inherits; what is printed by accident goes to standard error."""
    private = os.dup(1)
    os.dup2(2, 1)
    return os.fdopen(private, "wb")


def _answer(answers: BinaryIO, content: dict[str, Any]) -> None:
    answers.write(json.dumps(content).encode() + b"\n")
    answers.flush()


if __name__ == "__main__":
    main()

"""The exceptions that a user reads as one sentence, and the guard that turns them into an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

USER_ERROR_STATUS = 2
TRAINING_FAULT_STATUS = 1


class UserError(ValueError):
    """A mistake in a command line, a file or a model folder.

    Its text is one sentence: what happened, where, and what to do.
    """


class TrainingFault(RuntimeError):
    """Training cannot go on; the text says where it broke and what to try. Every rank raises it together."""


def run_guarded(main: Callable[[], None]) -> None:
    """Run an entry point; print what a user can mend without a traceback, on the first rank alone, and exit.

    The status is 2 for a UserError and 1 for a TrainingFault.
    """
    try:
        main()
    except UserError as error:
        _leave(error, USER_ERROR_STATUS)
    except TrainingFault as error:
        _leave(error, TRAINING_FAULT_STATUS)


def _leave(error: Exception, status: int) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(f"error: {error}\n")
        sys.stderr.flush()
    sys.exit(status)

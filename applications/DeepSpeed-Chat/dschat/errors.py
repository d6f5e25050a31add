"""The exceptions that a user reads as one sentence, and the guard that turns them into an exit status."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable

USER_ERROR_STATUS = 2
TRAINING_FAULT_STATUS = 1
STOPPED_STATUS = 75
"""EX_TEMPFAIL: run the same command again, with --resume auto."""


class UserError(ValueError):
    """A mistake in a command line, a file or a model folder.

    Its text is one sentence: what happened, where, and what to do.
    """


class RankMistake(UserError):
    """A mistake that one rank notices and the others do not, so that it must speak for itself."""


class TrainingFault(RuntimeError):
    """Training cannot go on; the text says where it broke and what to try. Every rank raises it together."""


class RankFault(TrainingFault):
    """A fault of one rank that the others do not know of, so that it must speak for itself."""


class Stopped(RuntimeError):
    """The run was asked to stop, and has saved all that it needs to go on. Every rank raises it together."""


def run_guarded(main: Callable[[], None]) -> None:
    """Run an entry point; print what a user can mend without a traceback, on one rank alone, and exit.

    The status is 2 for a UserError, 1 for a TrainingFault, and 75 for a run that was stopped and can go on.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        # characters that a terminal or a log file cannot take are shown as \\u...; they do not end a run
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        main()
    except UserError as error:
        _leave(error, USER_ERROR_STATUS)
    except TrainingFault as error:
        _leave(error, TRAINING_FAULT_STATUS)
    except Stopped as error:
        _leave(error, STOPPED_STATUS, kind="stopped")


def _leave(error: Exception, status: int, *, kind: str = "error") -> None:
    rank = os.environ.get("RANK", "0")
    if rank == "0" or isinstance(error, RankFault | RankMistake):
        where = "" if rank == "0" else f" on rank {rank}"
        sys.stderr.write(f"{kind}{where}: {error}\n")
        sys.stderr.flush()
    sys.exit(status)

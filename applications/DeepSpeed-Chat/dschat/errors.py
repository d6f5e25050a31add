"""The one exception for mistakes that a user can mend, and the guard that turns it into an exit status."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

USER_ERROR_STATUS = 2


class UserError(ValueError):
    """A mistake in a command line, a file or a model folder.

    Its text is one sentence: what happened, where, and what to do.
    """


def run_guarded(main: Callable[[], None]) -> None:
    """Run an entry point; print a UserError without a traceback, on the first rank alone, and exit with status 2."""
    try:
        main()
    except UserError as error:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"error: {error}\n")
            sys.stderr.flush()
        sys.exit(USER_ERROR_STATUS)

"""Named places at which a test may break a run: `fault_point("state.renamed")` does nothing unless asked to.

`DSCHAT_FAULT=name:count` kills the process (SIGKILL) when it comes to the place for the count-th time;
`name:count:action` does something else there, on the one rank that `DSCHAT_FAULT_RANK` names or on all. Several are
separated by commas.

    kill     die at once, as from `kill -9` or a power cut
    stop     send SIGTERM to this process, as a scheduler does before it takes the machine
    full     raise the OSError of a full disk
    hang     sleep for twenty seconds

`DSCHAT_FAULT_TRACE=file` appends the name of every place that is passed, so that a test can visit them all.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from collections import Counter

FAULT = "DSCHAT_FAULT"
RANK = "DSCHAT_FAULT_RANK"
TRACE = "DSCHAT_FAULT_TRACE"
HANG_SECONDS = 20.0

_passed: Counter[str] = Counter()


def fault_point(place: str) -> None:
    """Break here if the environment says so."""
    trace = os.environ.get(TRACE)
    if trace:
        with open(trace, "a", encoding="utf-8") as file:
            file.write(place + "\n")
    wanted = os.environ.get(FAULT)
    if not wanted or os.environ.get(RANK, os.environ.get("RANK", "0")) != os.environ.get("RANK", "0"):
        return
    _passed[place] += 1
    for fault in wanted.split(","):
        name, count, action = (*fault.split(":"), "kill")[:3]
        if name == place and _passed[place] == int(count):
            _break(action, place)


def _break(action: str, place: str) -> None:
    match action:
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "stop":
            os.kill(os.getpid(), signal.SIGTERM)
        case "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), place)
        case "hang":
            time.sleep(HANG_SECONDS)
        case _:
            raise ValueError(f"{FAULT} knows kill, stop, full and hang, got {action!r}")

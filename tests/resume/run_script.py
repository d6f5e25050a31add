"""Runs the jobs of a JSON file on the ranks that the launcher started: `deepspeed … run_script.py jobs.json`.

Each entry is {"job": ..., "environment": {...}, "stops": whether the run is to be stopped}.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path


def main() -> None:
    """Run every job in order; the first argument may be the launcher's --local_rank."""
    from dschat.errors import Stopped, run_guarded
    from dschat.runtime import faults
    from toys.jobs import Job, run_job

    def run(entry: dict[str, object]) -> None:
        stopped = False
        try:
            run_job(Job(**entry["job"]))
        except Stopped:
            stopped = True
        assert stopped == entry["stops"]

    for entry in json.loads(Path(sys.argv[-1]).read_text()):
        faults._passed.clear()
        for name in (faults.FAULT, faults.RANK):
            os.environ.pop(name, None)
        os.environ.update(entry["environment"])
        run_guarded(lambda entry=entry: run(entry))


if __name__ == "__main__":
    main()

"""Runs the jobs of a JSON file on the ranks that the launcher started: `deepspeed … run_jobs.py jobs.json`."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Run every job in order; the first argument may be the launcher's --local_rank."""
    from toys.jobs import Job, run_job

    jobs = [Job(**job) for job in json.loads(Path(sys.argv[-1]).read_text())]
    for job in jobs:
        run_job(job)


if __name__ == "__main__":
    main()

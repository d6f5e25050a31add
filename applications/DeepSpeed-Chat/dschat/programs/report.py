"""One self-contained HTML page from any set of result and verdict files. `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.judging.report import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

"""Asks a reward model about pairs of which anybody can tell the better answer."""

from dschat.answering.rw_eval import main
from dschat.errors import run_guarded

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

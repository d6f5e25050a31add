"""Asks a reward model about pairs of which anybody can tell the better answer."""

from dschat.errors import run_guarded
from dschat.programs.rw_eval import main

if __name__ == "__main__":
    run_guarded(main)

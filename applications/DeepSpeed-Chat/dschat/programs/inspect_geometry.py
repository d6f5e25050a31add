"""What the Wasserstein penalty would see in a model: `--help` lists the flags."""

from dschat.errors import run_guarded
from dschat.tools.inspect_geometry import main

__all__ = ["main"]

if __name__ == "__main__":
    run_guarded(main)

"""A rank that meets the others, waits until it may go on, and adds up: `deepspeed … meet.py folder`."""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    """Leave a file per rank when all have met, and the sum of the ranks in it in the end."""
    import torch

    from dschat.runtime.distributed import initialize, rank, reduce_sum

    folder = Path(sys.argv[-1])
    initialize(-1, timeout_seconds=60)
    own = folder / f"rank{rank()}"
    own.touch()
    while not (folder / "go").exists():
        time.sleep(0.05)
    own.write_text(str(reduce_sum(torch.tensor(rank() + 1.0)).item()))


if __name__ == "__main__":
    from dschat.errors import run_guarded

    run_guarded(main)

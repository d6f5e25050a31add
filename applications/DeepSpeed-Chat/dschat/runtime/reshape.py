"""A saved DeepSpeed engine for another number of ranks, by way of DeepSpeed's universal checkpoint."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from dschat.errors import UserError
from dschat.runtime import files
from dschat.runtime.distributed import barrier, decided_by_main, is_main_process
from dschat.runtime.training_engine import TrainingEngine


def load_reshaped(engine: TrainingEngine, folder: Path, name: str, scratch: Path) -> str | None:
    """Load `folder/name`, which another number of ranks wrote, into an engine of ZeRO stage 1 or higher.

    Weights, optimizer states, schedule and counters are taken over. All ranks call it together.

    Args:
        engine: a DeepSpeed engine, as yet untrained.
        folder: a whole state.
        name: which of its engines.
        scratch: a folder that all ranks see, for as much data again; deleted afterwards.
    Returns:
        what was loaded, None if there was nothing.
    Raises:
        UserError: DeepSpeed cannot convert it.
    """
    decided_by_main(lambda: _convert(folder / name, scratch / name))
    # Private in DeepSpeed; the dependency is pinned to the release that this was tested on.
    engine._config.load_universal_checkpoint = True
    try:
        path, _ = engine.load_checkpoint(str(scratch), tag=name)
    finally:
        engine._config.load_universal_checkpoint = False
    barrier()
    if is_main_process():
        files.remove(scratch)
    barrier()
    return path


def _convert(source: Path, target: Path) -> None:
    files.remove(target.parent)
    target.mkdir(parents=True)
    # a program of DeepSpeed's, which starts processes of its own; plain ZeRO 1 and 2 lack what it asks for otherwise
    words = ["--input_folder", str(source), "--output_folder", str(target), "--inject_missing_state"]
    ended = subprocess.run(
        [sys.executable, "-m", "deepspeed.checkpoint.ds_to_universal", *words],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if ended.returncode != 0:
        reason = (ended.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{source} cannot be reshaped for another number of ranks ({reason}); start with as many")

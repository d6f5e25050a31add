"""Starts the real DeepSpeed launcher."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from dschat.runtime.rendezvous import free_port

REPOSITORY = Path(__file__).parents[1]


def python_path() -> str:
    """The PYTHONPATH of programs that use packages of scripts/: that folder before what is in this process's."""
    return os.pathsep.join(filter(None, [str(REPOSITORY / "scripts"), os.environ.get("PYTHONPATH", "")]))


def launch(
    script: Path, *arguments: str, ranks: int = 2, timeout: float = 540, port: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `deepspeed … script arguments` in the script's folder and capture what it prints; ranks meet at `port`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    # the launcher puts the script's folder on the path, not that of the toy models
    environment["PYTHONPATH"] = python_path()
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    tools = Path(sys.executable).parent
    environment["PATH"] = f"{tools}{os.pathsep}{environment['PATH']}"
    command = [
        str(tools / "deepspeed"), "--num_gpus", str(ranks), "--master_port", str(port or free_port()),
        script.name, *arguments,
    ]  # fmt: skip
    return subprocess.run(
        command, cwd=script.parent, env=environment, capture_output=True, text=True, timeout=timeout, check=False
    )

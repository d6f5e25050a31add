"""Starts the real DeepSpeed launcher."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(
    script: Path, *arguments: str, ranks: int = 2, timeout: float = 540, port: int | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `deepspeed … script arguments` in the script's folder and capture what it prints; ranks meet at `port`."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
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

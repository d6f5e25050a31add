"""Time and peak memory of a piece of code, on CPU or GPU, in this process."""

from __future__ import annotations

import gc
import platform
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
from rich.console import Console

from dschat.runtime.memory import CLEAR_REFS, peak_since, start_peak


@dataclass(frozen=True)
class Measurement:
    """Best time of several runs, and the memory that one run needed beyond what was there before it."""

    seconds: float
    peak_bytes: int | None
    """None where the platform does not tell."""
    runs: int


def measure_in_turn(
    contenders: Mapping[str, Callable[[], object]], *, device: torch.device, repeats: int, seconds_each: float
) -> dict[str, Measurement]:
    """Runs the contenders in turn, so that a busy spell of the machine meets them all, and keeps each one's best time.

    The first run of each warms up and measures memory. A contender stops after `repeats` timed runs, or after one that
    brings its total beyond `seconds_each`.
    """
    peaks = {name: _peak_bytes(run, device) for name, run in contenders.items()}
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            if sum(seconds[name]) < seconds_each:
                seconds[name].append(_seconds(run, device))
    return {name: Measurement(min(taken), peaks[name], len(taken)) for name, taken in seconds.items()}


def wide_console() -> Console:
    """The terminal, or, where the output goes to a file, one that is wide enough for the tables."""
    console = Console()
    return console if console.is_terminal else Console(width=120)


def environment(device: torch.device) -> dict[str, object]:
    """What a reader needs to judge or repeat the numbers: machine, versions, threads and command."""
    return {
        "command": " ".join(["python", *sys.argv]),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "pot": _version("POT"),
        "geomloss": _version("geomloss"),
    }


def _seconds(run: Callable[[], object], device: torch.device) -> float:
    _synchronize(device)
    start = time.perf_counter()
    run()
    _synchronize(device)
    return time.perf_counter() - start


def _peak_bytes(run: Callable[[], object], device: torch.device) -> int | None:
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif not CLEAR_REFS.exists():
        run()
        return None
    before = start_peak(device)
    run()
    _synchronize(device)
    return peak_since(before, device)


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {len(names)} cores"


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

"""Launches of training programs, one after the other: command, environment, log file, one live line on the screen."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from quickstart.options import ROOT

TRAINING = ROOT / "applications" / "DeepSpeed-Chat" / "training"
# lines of the launcher and the libraries; what a step says of itself begins with a time and a level, or is a table
NOISE = re.compile(
    r"\[(INFO|WARNING)\]|\[launch\.py:|^DeepSpeed deepspeed\.ops|^\[Gloo\]|^\W*$|INFO +gcc |^(Loading|Writing) .*it/s\]"
)
LINE_PREFIX = re.compile(r"^(\d\d:\d\d:\d\d)? +(INFO|WARNING) +|^ +")
LINE_WIDTH = 240
LOG_LINES_SHOWN = 20
SECONDS_BETWEEN_LINES = 10.0
CPU_RANKS = 2

Flags = Mapping[str, str | int | float]


@dataclass(frozen=True)
class Stage:
    """One launch of a training program."""

    name: str
    """Of its log and of its output folder."""
    title: str
    folder: Path
    """The step's own folder, in which the program is started."""
    program: str
    flags: Flags


class StageFailed(Exception):
    """A training program ended with an error, which has been shown already."""


def batch_flags(batch: int, num_ranks: int, *purposes: str) -> dict[str, int]:
    """The flags that share a batch out to the ranks, one for each purpose, such as train and eval."""
    return {f"per_device_{purpose}_batch_size": batch // num_ranks for purpose in purposes}


def count_ranks() -> int:
    """GPUs to use, a power of two that divides every batch size, or two processes where there is no GPU."""
    import torch

    found = torch.cuda.device_count()
    return max(n for n in (1, 2, 4, 8) if n <= found) if found else CPU_RANKS


def launch_words(stage: Stage, *, num_ranks: int) -> list[str]:
    """The command of a stage, as a list of words."""
    from dschat.runtime.rendezvous import free_port

    launcher = str(Path(sys.executable).with_name("deepspeed"))
    words = [launcher, "--num_gpus", str(num_ranks), "--master_port", str(free_port()), stage.program, "--deepspeed"]
    for name, value in stage.flags.items():
        words += [f"--{name}", str(value)]
    return words


def child_environment(*, num_ranks: int) -> dict[str, str]:
    """What the launched programs see: this environment's tools first, no network, and no more threads than cores."""
    cores = len(os.sched_getaffinity(0))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // num_ranks))),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": str(LINE_WIDTH),
    }


def run_stage(stage: Stage, log: Path, console: Console, *, num_ranks: int) -> None:
    """Run a stage with its output in a log file and its newest line on the screen.

    Raises:
        StageFailed: it ended with an error; its last lines, its command and its log's path have been shown.
    """
    words = launch_words(stage, num_ranks=num_ranks)
    run_command(stage.title, words, stage.folder, log, console, num_ranks=num_ranks)


def run_command(title: str, words: list[str], folder: Path, log: Path, console: Console, *, num_ranks: int) -> None:
    """Run a program in a folder, likewise, with the threads of one of `num_ranks` processes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file, _live_line(console, title) as show:
        file.write(f"# cd {shlex.quote(str(folder))} && {shlex.join(words)}\n")
        file.flush()
        with _started(words, folder, child_environment(num_ranks=num_ranks)) as process:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                if not NOISE.search(line):
                    show(LINE_PREFIX.sub("", line.rstrip()))
        status = process.returncode
    if status != 0:
        _show_failure(title, folder, words, log, status, console)
        raise StageFailed(title)


@contextmanager
def _started(words: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive this block, whatever ends it."""
    process = subprocess.Popen(
        words, cwd=folder, env=dict(environment), text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def _live_line(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Shows a title with the newest line beside it; where the output is no terminal, a line every few seconds."""
    console.print(f"[bold]{title}[/bold]")
    started = shown_at = time.monotonic()
    newest = ""

    def cut(line: str) -> Text:
        # room for the spinner; a wrapped line would flicker
        text = Text(line)
        text.truncate(max(console.width - 4, 1), overflow="ellipsis")
        return text

    with console.status("starting") as status:

        def show(line: str) -> None:
            nonlocal newest, shown_at
            newest = line
            status.update(cut(line))
            if not console.is_terminal and time.monotonic() - shown_at >= SECONDS_BETWEEN_LINES:
                shown_at = time.monotonic()
                console.print(cut("  " + line), style="dim")

        yield show
    console.print(cut(f"  {time.monotonic() - started:.0f} s  {newest}"), style="dim")


def _show_failure(title: str, folder: Path, words: list[str], log: Path, status: int, console: Console) -> None:
    with log.open(encoding="utf-8", errors="replace") as file:
        # what the launcher says last hides what the program said last
        last = deque((line for line in file if not NOISE.search(line)), maxlen=LOG_LINES_SHOWN)
    console.print(Text("".join(last).rstrip(), style="dim"))
    console.print(
        Text(f"error: {title} ended with status {status}; its last lines are above, the full log is {log}"),
        style="bold red", soft_wrap=True,
    )  # fmt: skip
    console.print(Text(f"command: cd {shlex.quote(str(folder))} && {shlex.join(words)}"), soft_wrap=True)

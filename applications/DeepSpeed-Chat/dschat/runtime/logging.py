"""What a run says on the screen: log lines, one progress bar and tables, all on rank 0."""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

import datasets
import transformers
from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from dschat.runtime.distributed import is_main_process

NOISY_LIBRARIES = ("DeepSpeed", "transformers", "datasets")
NARROWEST_TABLE = 120
SECONDS_SMOOTHING = 0.9  # of the running mean that the remaining time is reckoned from

_console: Console | None = None


def console() -> Console:
    """The one console of this process."""
    global _console
    if _console is None:
        _console = Console()
        if not _console.is_terminal:
            _console = Console(width=max(_console.width, NARROWEST_TABLE))
    return _console


def set_up_logging() -> None:
    """Send log lines to the console: ours from INFO on rank 0, errors alone from everybody else."""
    if console().is_terminal:
        handler: logging.Handler = RichHandler(console=console(), show_path=False, log_time_format="%H:%M:%S")
        handler.setFormatter(logging.Formatter("%(message)s"))
    else:
        # a log file wants whole lines
        handler = logging.StreamHandler(sys.stdout)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("dschat").setLevel(logging.INFO if is_main_process() else logging.ERROR)
    for name in NOISY_LIBRARIES:
        logging.getLogger(name).setLevel(logging.WARNING if is_main_process() else logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bars()
    # advice of the libraries to their own callers
    warnings.filterwarnings("ignore", category=FutureWarning)


class StepProgress:
    """One progress bar with rate and remaining time; where the output is no terminal, one line per step."""

    def __init__(self, progress: Progress | None, total: int, title: str) -> None:
        self._progress = progress
        self._total = total
        self._seconds: float | None = None
        self._title = title
        self._task = progress.add_task(title, total=total, numbers="") if progress is not None else None
        self._logger = logging.getLogger("dschat.progress")

    def advance(self, step: int, metrics: Mapping[str, float], shown: Sequence[str]) -> None:
        """Show that `step` is done.

        Args:
            step: number of finished steps.
            metrics: the step's numbers, `step_seconds` among them.
            shown: which of them to show, in this order; those that are missing are left out.
        """
        newest = metrics["step_seconds"]
        if self._seconds is None:
            self._seconds = newest
        else:
            self._seconds = SECONDS_SMOOTHING * self._seconds + (1 - SECONDS_SMOOTHING) * newest
        numbers = "  ".join(f"{name} {metrics[name]:.4g}" for name in shown if name in metrics)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=step, numbers=f"{self._seconds:.2f} s/step  {numbers}")
        else:
            left = max(self._total - step, 0) * self._seconds
            self._logger.info(
                "%s %d/%d  %.2f s/step  %s left  %s",
                self._title, step, self._total, self._seconds, _clock(left), numbers,
            )  # fmt: skip


@contextmanager
def step_progress(total: int, title: str) -> Iterator[StepProgress]:
    """A progress display for `total` steps; silent off rank 0."""
    if not is_main_process() or not console().is_terminal:
        yield StepProgress(None, total, title)
        return
    columns = [
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
        TimeElapsedColumn(), TimeRemainingColumn(), TextColumn("{task.fields[numbers]}"),
    ]  # fmt: skip
    with Progress(*columns, console=console()) as progress:
        yield StepProgress(progress, total, title)


def show_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table on rank 0; cells are shown as they are, without markup. Where it cannot be printed, it is not."""
    if not is_main_process():
        return
    table = Table(title=title, show_lines=True)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    # log lines are as patient where the output goes to a full disk
    with suppress(OSError):
        console().print(table)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"

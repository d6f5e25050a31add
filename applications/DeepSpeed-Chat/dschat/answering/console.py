"""What inference and evaluation show on a terminal: messages and progress on stderr, results on stdout."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_errors = Console(stderr=True, highlight=False)


def set_up_logging() -> None:
    """Our own messages at once, the libraries' only where something is wrong."""
    handler: logging.Handler = RichHandler(
        console=_errors, show_time=False, show_path=False, highlighter=NullHighlighter(), markup=False
    )
    form = "%(message)s"
    if not _errors.is_terminal:
        # a message stays on its line in a log file
        handler, form = logging.StreamHandler(), "%(levelname)-8s %(message)s"
    logging.basicConfig(level=logging.WARNING, format=form, handlers=[handler])
    for name in ("__main__", "dschat"):
        logging.getLogger(name).setLevel(logging.INFO)


def quiet_transformers() -> None:
    """Hide the progress bars and warnings of transformers, which is slow to import."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)


def show(text: str) -> None:
    """Lines for the user on stdout, as they are."""
    Console(highlight=False).print(text, markup=False, soft_wrap=True)


@contextmanager
def progress_bar(title: str, total: int, *, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar; yields what adds to it. Nothing is drawn where nothing is left to do, or stderr is no terminal.

    Args:
        title: what is being done.
        total: how much there is to do.
        done: how much of it earlier runs did.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_errors, disable=done >= total or not _errors.is_terminal) as progress:
        task = progress.add_task(title, total=total, completed=done)
        yield lambda amount: progress.update(task, advance=amount)

"""What the quickstarts share around their launches: the output folder, the first model, the screen, the exit status."""

from __future__ import annotations

import importlib.metadata
import logging
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler

from quickstart.options import MARKER_NAME
from quickstart.stages import StageFailed

LIBRARIES = ("dschat", "torch", "deepspeed", "transformers", "datasets", "accelerate", "numpy")
NARROWEST_USEFUL = 120


def prepare_output(folder: Path, results: Sequence[str]) -> None:
    """Make the folder ours and remove what an earlier run left in it.

    Args:
        folder: of everything that the run leaves behind.
        results: names of its files and folders.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER_NAME).touch()
    for path in (folder / name for name in results):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def library_versions() -> dict[str, str]:
    """Python's and the libraries' versions."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def make_first_model(
    size: Mapping[str, int], folder: Path, console: Console, *, data_path: str, cache_dir: Path, seed: int
) -> None:
    """Train the tokenizer on a dataset's texts and write the unlearned model.

    Args:
        size: differences from TinyModelSize.
        folder: where the model goes.
        console: the screen.
        data_path: the dataset.
        cache_dir: where it is kept, if it is made here.
        seed: of the weights.
    """
    # slow to import: the screen shows what is going on first
    from dschat.tools.tiny_model import TinyModelSize, make_tiny_model

    count = make_tiny_model(folder, TinyModelSize(**size), data_path=data_path, cache_dir=cache_dir, seed=seed)
    console.print(f"  a Llama of {count:,} parameters, unlearned, and its tokenizer", style="dim")


def set_up_logging(console: Console) -> None:
    """Our own messages on the screen; the libraries' own bars and notes are for other callers."""
    handler = RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter()
    )
    logging.basicConfig(level=logging.WARNING, format="  %(message)s", handlers=[handler])
    logging.getLogger("dschat").setLevel(logging.INFO)
    # it sets its own level on import, which a filter outlives
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    # slow to import
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def run_to_exit(run: Callable[[Console], None]) -> None:
    """Run a quickstart and turn failures into an exit status."""
    signal.signal(signal.SIGTERM, _stop)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=max(console.width, NARROWEST_USEFUL), highlight=False)
    # imported late, after the options were checked
    from dschat.errors import run_guarded

    try:
        run_guarded(lambda: run(console))
    except StageFailed:
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        sys.exit(130)


def _stop(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)

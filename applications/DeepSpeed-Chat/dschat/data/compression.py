"""Compressed data files: names, unpacked streams, and lines; nothing is unpacked onto the disk or whole into memory."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pyarrow

from dschat.errors import UserError

COMPRESSIONS = (".gz", ".zst")
"""Suffixes of files that are unpacked while they are read; zstd comes with pyarrow."""

ALWAYS_UNPACKED_BYTES = 256 * 2**20
LARGEST_RATIO = 200
"""Text shrinks to a tenth; a file that grows by more than this factor is made to fill a memory."""

_CHUNK_BYTES = 2**16


def plain_suffix(path: Path) -> str:
    """The suffix in small letters below that of the compression: `.jsonl` of `rows.jsonl.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def plain_stem(path: Path) -> str:
    """The file's name without suffix and compression: `rows` of `rows.jsonl.gz`."""
    return Path(path.stem).stem if path.suffix.lower() in COMPRESSIONS else path.stem


@contextmanager
def unpacked(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, unpacked as they are read where its name says gzip or zstd.

    Raises:
        UserError: when opening, the file cannot be read; while reading, it unpacks to more than 256 MiB and 200 times
            its size.
        OSError, EOFError, zlib.error: while reading, it is damaged; `numbered_lines` and `read_unpacked` say where.
    """
    try:
        size = path.stat().st_size
        packed = path.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    with packed:
        match path.suffix.lower():
            case ".gz":
                inner = gzip.GzipFile(fileobj=packed)
            case ".zst":
                inner = pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, "r"), "zstd")
            case _:
                yield packed
                return
        if size == 0:
            raise UserError(f"{path} is empty, which no compressed file is; copy or write it again")
        with io.BufferedReader(_Bounded(path, inner, size), _CHUNK_BYTES) as stream:
            yield stream


class _Bounded(io.RawIOBase):
    """A stream that refuses to grow without measure."""

    def __init__(self, path: Path, inner: gzip.GzipFile | pyarrow.NativeFile, packed_size: int) -> None:
        self._path = path
        # one step of the decompressor at a time, so that what comes before a damage is handed out
        self._read = inner.read1 if isinstance(inner, gzip.GzipFile) else inner.read
        self._left = max(ALWAYS_UNPACKED_BYTES, LARGEST_RATIO * packed_size)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise UserError(
                f"{self._path} unpacks to more than {LARGEST_RATIO} times its size, which no text does; if it is "
                "right, unpack it and pass the plain file"
            )
        buffer[: len(data)] = data
        return len(data)


def numbered_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield (number from 1, line with its end), lines ending in \\n alone.

    Raises:
        UserError: the file cannot be read, or not beyond a line that is named.
    """
    number = 0
    with unpacked(path) as stream:
        try:
            for number, line in enumerate(stream, start=1):
                yield number, line
        except (OSError, EOFError, zlib.error) as error:
            where = f"after line {number:,}" if number else "at its beginning"
            raise UserError(f"{path} is damaged or cut off {where} ({error}); copy or write it again") from error


def read_unpacked(path: Path) -> bytes:
    """All bytes of the file, unpacked; UserError as in `numbered_lines`."""
    return b"".join(line for _, line in numbered_lines(path))

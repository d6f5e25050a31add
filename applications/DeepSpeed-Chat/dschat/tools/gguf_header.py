"""The header of a GGUF file: its settings, and where its weights lie. Read without the weights, in a second at most.

Layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The libraries read headers too, but slowly (16 s for
a vocabulary of 262,144 tokens), and a damaged one ends them in tracebacks of many kinds.
"""

from __future__ import annotations

import mmap
import re
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from math import prod
from pathlib import Path

from dschat.errors import UserError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
"""What the installed libraries read; version 1 was in use for some weeks of 2023."""
ALIGNMENT = 32
"""Bytes to whose multiple the weights begin, where the file does not say otherwise."""
MOST_DIMENSIONS = 4
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""Codes of single values, as `struct` names them."""
STRING, ARRAY = 8, 9
NUMBERED = re.compile(r"(.*)-(\d{5})-of-(\d{5})\.gguf")
"""Names of the parts that llama.cpp splits a model into."""

Setting = int | float | bool | str


@dataclass(frozen=True)
class StoredWeight:
    """One tensor of a file."""

    name: str
    kind: str
    """How its numbers are stored: F32, BF16, Q4_K, …"""
    count: int
    """Numbers in it."""
    dimensions: int
    end: int
    """Bytes from the file's beginning to the tensor's end."""


@dataclass(frozen=True)
class GgufHeader:
    """What stands before the weights of a GGUF file."""

    settings: Mapping[str, Setting]
    """Single values by their key, such as general.architecture."""
    lengths: Mapping[str, int]
    """Lengths of the lists by their key, such as tokenizer.ggml.tokens."""
    weights: tuple[StoredWeight, ...]

    @property
    def architecture(self) -> str:
        """The name of the model's family, such as llama."""
        return str(self.settings["general.architecture"])

    @property
    def num_weights(self) -> int:
        """Numbers in all tensors together."""
        return sum(weight.count for weight in self.weights)

    @property
    def kinds(self) -> list[str]:
        """How weights are stored, what most tensors have first."""
        return [kind for kind, _ in Counter(weight.kind for weight in self.weights).most_common()]

    @property
    def matrix_kinds(self) -> set[str]:
        """How matrices are stored; vectors, such as norms, are F32 in nearly every file."""
        return {weight.kind for weight in self.weights if weight.dimensions > 1}


class _Reader:
    """Values one after the other; struct.error where the file ends too early."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content = content
        self.place = 0

    def scalar(self, code: str) -> int | float | bool:
        found: int | float | bool = struct.unpack_from(f"<{code}", self.content, self.place)[0]
        self.place += struct.calcsize(f"<{code}")
        return found

    def number(self, code: str) -> int:
        return int(self.scalar(code))

    def string(self) -> str:
        length = self.number("Q")
        if self.place + length > len(self.content):
            raise struct.error("a text goes beyond the end")
        self.place += length
        return self.content[self.place - length : self.place].decode()

    def skip_array(self, code: int, count: int) -> None:
        """Go past a list; the texts of a vocabulary are of no use here."""
        if code in SCALARS:
            self.place += count * struct.calcsize(f"<{SCALARS[code]}")
            return
        if code != STRING:
            raise ValueError(f"a list of values of kind {code}")
        for _ in range(count):
            (length,) = struct.unpack_from("<Q", self.content, self.place)
            self.place += 8 + length


def read_header(path: Path, *, name: str) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Args:
        path: the file.
        name: what messages call it.
    Raises:
        UserError: it is no GGUF file, of a version or with weights that cannot be read, cut off, damaged, one part of
            several, or without weights.
    """
    with path.open("rb") as file:
        beginning = file.read(8)
        _check_beginning(beginning, name)
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            try:
                header = _parse(content, name)
            except struct.error as error:
                raise UserError(f"{name} is cut off within its header; copy or download it again") from error
            except (ValueError, OverflowError, MemoryError) as error:
                if isinstance(error, UserError):
                    raise
                raise UserError(f"{name} has a damaged header ({error}); copy or download it again") from error
    _check_whole(header, path, name)
    return header


def _check_beginning(beginning: bytes, name: str) -> None:
    if beginning[:4] != MAGIC:
        raise UserError(f"{name} is not a GGUF file (it does not begin with {MAGIC.decode()}); name a .gguf file")
    if len(beginning) < 8:
        raise UserError(f"{name} is cut off within its header; copy or download it again")
    number = int.from_bytes(beginning[4:8], "little")
    if number in VERSIONS:
        return
    if int.from_bytes(beginning[4:8], "big") in VERSIONS:
        raise UserError(f"{name} is for big-endian machines, which cannot be read here; take the usual file")
    readable = " and ".join(map(str, VERSIONS))
    raise UserError(f"{name} is of GGUF version {number}, but versions {readable} can be read; convert the model anew")


def _parse(content: mmap.mmap, name: str) -> GgufHeader:
    reader = _Reader(content)
    reader.place = 8
    num_tensors, num_settings = reader.number("Q"), reader.number("Q")
    settings: dict[str, Setting] = {}
    lengths: dict[str, int] = {}
    for _ in range(num_settings):
        key, code = reader.string(), reader.number("I")
        if code in SCALARS:
            settings[key] = reader.scalar(SCALARS[code])
        elif code == STRING:
            settings[key] = reader.string()
        elif code == ARRAY:
            element, lengths[key] = reader.number("I"), reader.number("Q")
            reader.skip_array(element, lengths[key])
        else:
            raise ValueError(f"{key} is a value of kind {code}")
    if "general.architecture" not in settings:
        raise ValueError("it names no architecture")
    entries = []
    for _ in range(num_tensors):
        tensor, num_dimensions = reader.string(), reader.number("I")
        if num_dimensions > MOST_DIMENSIONS:
            raise ValueError(f"{tensor} has {num_dimensions} dimensions")
        shape = tuple(reader.number("Q") for _ in range(num_dimensions))
        entries.append((tensor, shape, reader.number("I"), reader.number("Q")))
    alignment = int(settings.get("general.alignment", ALIGNMENT)) or ALIGNMENT
    start = -(-reader.place // alignment) * alignment
    weights = (_stored_weight(tensor, shape, code, start + offset, name) for tensor, shape, code, offset in entries)
    return GgufHeader(settings=settings, lengths=lengths, weights=tuple(weights))


def _stored_weight(tensor: str, shape: tuple[int, ...], code: int, start: int, name: str) -> StoredWeight:
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        kind = GGMLQuantizationType(code)
        block, block_bytes = GGML_QUANT_SIZES[kind]
    except (ValueError, KeyError) as error:
        raise UserError(
            f"{name} stores weights in a way (number {code}) that the installed gguf {version('gguf')} does not know; "
            "install a newer gguf, or take another quantization of the model"
        ) from error
    count = prod(shape)
    return StoredWeight(
        name=tensor, kind=kind.name, count=count, dimensions=len(shape), end=start + count // block * block_bytes
    )


def _check_whole(header: GgufHeader, path: Path, name: str) -> None:
    num_parts = int(header.settings.get("split.count", 1))
    if num_parts > 1:
        raise UserError(_about_split(path.resolve(), name, num_parts))
    if not header.weights:
        raise UserError(f"{name} holds no weights (a vocabulary alone, perhaps); name the file of the model")
    size, needed = path.stat().st_size, max(weight.end for weight in header.weights)
    if size < needed:
        raise UserError(
            f"{name} is cut off: it has {size:,} bytes, but its header speaks of {needed:,}; copy or download it again"
        )


def _about_split(path: Path, name: str, num_parts: int) -> str:
    """What to do with one of several GGUF files that are one model."""
    merging = "merge them with llama.cpp (llama-gguf-split --merge FIRST_PART OUTPUT)"
    numbered = NUMBERED.fullmatch(path.name)
    if numbered is None:
        return f"{name} is one of {num_parts} parts of a split model, which cannot be read apart; {merging}"
    names = [f"{numbered[1]}-{part:05}-of-{num_parts:05}.gguf" for part in range(1, num_parts + 1)]
    missing = [part for part in names if not (path.parent / part).is_file()]
    if not missing:
        return f"{name} is one of {num_parts} parts of a split model, which cannot be read apart; {merging}"
    return (
        f"{name} is one of {num_parts} parts of a split model, and {', '.join(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} not beside it; download all parts, then {merging}"
    )

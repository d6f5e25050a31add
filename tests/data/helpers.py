"""Small files and data sources for the data tests."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
from datasets import Dataset

from dschat.data.stage_data import DataSource


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, compressed if the name says so, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(packed("".join(json.dumps(row) + "\n" for row in rows).encode(), path.suffix))
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as parquet, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list([dict(row) for row in rows]).to_parquet(str(path))
    return path


def packed(content: bytes, suffix: str) -> bytes:
    """The content of a file whose name ends in `suffix`: gzip for .gz, zstd for .zst, else as it is."""
    match suffix.rpartition(".")[2]:
        case "gz":
            return gzip.compress(content)
        case "zst":
            sink = pyarrow.BufferOutputStream()
            with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
                stream.write(content)
            return sink.getvalue().to_pybytes()
        case _:
            return content


def numbered_rows(count: int, *, start: int = 0) -> list[dict[str, Any]]:
    """Rows of the user's own format that are all different."""
    return [
        {
            "prompt": f"Human: question {index}? Assistant:",
            "chosen": f"good answer {index}",
            "rejected": f"bad {index}",
        }
        for index in range(start, start + count)
    ]


def data_source(*paths: Path | str, cache_dir: Path, **changes: Any) -> DataSource:
    """A data source with the defaults of the command line."""
    values: dict[str, Any] = {
        "data_path": tuple(str(path) for path in paths),
        "data_format": None,
        "data_split": "2,4,4",
        "split_by": "row",
        "seed": 1234,
        "cache_dir": cache_dir,
        "end_of_conversation": None,
    }
    return DataSource(**(values | changes))

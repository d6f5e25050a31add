"""Small files and data sources for the data tests."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from dschat.data.stage_data import DataSource


def write_jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as JSON lines, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write rows as parquet, making the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_list([dict(row) for row in rows]).to_parquet(str(path))
    return path


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

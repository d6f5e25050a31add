"""The data files of a split as one table: rows of JSON, or parquet; their columns may differ where it does no harm."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
from datasets import Dataset, Features

from dschat.data.cache import quiet_datasets
from dschat.data.folders import is_table
from dschat.data.json_rows import BadRows, iter_json_rows, read_json_rows
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_ROWS_THAT_SHOW_COLUMNS = 64


def read_rows(files: Sequence[Path], *, text_columns: Sequence[str], bad: BadRows) -> tuple[Dataset, list[int]]:
    """The rows of JSON files, and how many each gave.

    Args:
        files: see `read_json_rows`.
        text_columns: must hold text in every row; a column that no file has is left to the caller.
        bad: takes rows that cannot be read.
    Raises:
        UserError: a row is at fault, a file lacks a column that another has, or a column's values are of several kinds.
    """
    rows = {file: read_json_rows(file, text_columns=text_columns, bad=bad) for file in files}
    columns = {file: list(dict.fromkeys(chain.from_iterable(found))) for file, found in rows.items() if found}
    _check_columns_shared(columns, text_columns)
    return _rows_to_dataset(rows), [len(found) for found in rows.values()]


def read_tables(files: Sequence[Path], *, text_columns: Sequence[str], cache_dir: Path) -> tuple[Dataset, list[int]]:
    """The rows of parquet files, and how many each gave; files without rows need not have the columns of the others.

    A column that only some files have is null in the rows of the others.

    Args:
        files: parquet.
        text_columns: must be in all files or in none.
        cache_dir: for memory-mapped Arrow.
    Raises:
        UserError: a file is not whole, lacks one of `text_columns` that another has, or has a column of another type.
    """
    heads = {file: _parquet_head(file) for file in files}
    counts = [count for _, count in heads.values()]
    schemas = {file: schema for file, (schema, count) in heads.items() if count}
    if not schemas:
        return Dataset.from_dict({}), counts
    _check_columns_shared({file: schema.names for file, schema in schemas.items()}, text_columns)
    first = next(iter(schemas.values()))
    alike = all(schema.equals(first) for schema in schemas.values())
    features = None if alike else Features.from_arrow_schema(_unified(schemas))
    try:
        with quiet_datasets():
            paths = [str(file) for file in schemas]
            return Dataset.from_parquet(paths, cache_dir=str(cache_dir / "parquet"), features=features), counts
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        names = ", ".join(str(file.absolute()) for file in schemas)
        raise UserError(
            f"{names} could not be read as one table ({first_line(error)}); write the files again"
        ) from error


def columns_of(files: Sequence[Path], *, bad: BadRows) -> Features:
    """Columns and their types, from the beginning of the first file that has rows; none where no file has.

    Args:
        files: all parquet or none, as above.
        bad: takes rows of JSON that cannot be read.
    """
    for file in files:
        if is_table(file):
            schema, count = _parquet_head(file)
            if count or len(files) == 1:
                return Features.from_arrow_schema(schema)
        else:
            rows = [row for _, row in islice(iter_json_rows(file, bad=bad), _ROWS_THAT_SHOW_COLUMNS)]
            if rows:
                return _rows_to_dataset({file: rows}).features
    return Features()


def first_line(error: BaseException) -> str:
    """The first line of an error's text, without the end that would break a sentence."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')[:200].rstrip(". ")


def _check_columns_shared(columns: Mapping[Path, Sequence[str]], needed: Sequence[str]) -> None:
    """Refuse a needed column that some of the files lack; the log names other columns that some lack."""
    everywhere = dict.fromkeys(chain.from_iterable(columns.values()))
    for file, names in columns.items():
        lacking = [name for name in everywhere if name not in names]
        for name in needed:
            if name in lacking:
                other = next(each for each, there in columns.items() if name in there)
                raise UserError(
                    f"{file.absolute()} lacks column '{name}', which {other.name} has; add it, or move the file away"
                )
        if lacking:
            logger.info("%s lacks what other files have: %s; null in its rows", file.absolute(), ", ".join(lacking))


def _parquet_head(file: Path) -> tuple[pyarrow.Schema, int]:
    """A parquet file's columns and its number of rows."""
    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            return table.schema_arrow, table.metadata.num_rows
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f"{file.absolute()} is not a whole parquet file ({first_line(error)}); write it again"
        ) from error


def _unified(schemas: Mapping[Path, pyarrow.Schema]) -> pyarrow.Schema:
    """The columns of all files, each of the widest of its types."""
    [(first, unified), *others] = [(file, schema.remove_metadata()) for file, schema in schemas.items()]
    for file, schema in others:
        for column in schema:
            if column.name not in unified.names:
                unified = unified.append(column)
                continue
            at = unified.get_field_index(column.name)
            try:
                wider = pyarrow.unify_schemas([pyarrow.schema([unified.field(at)]), pyarrow.schema([column])],
                                              promote_options="permissive")  # fmt: skip
            except pyarrow.ArrowException as error:
                raise UserError(
                    f"column '{column.name}' of {file.absolute()} holds {column.type}, that of {first.name} "
                    f"{unified.field(at).type}; make the files alike"
                ) from error
            unified = unified.set(at, wider.field(0))
    return unified


def _rows_to_dataset(rows: Mapping[Path, Sequence[Mapping[str, Any]]]) -> Dataset:
    """Rows that may lack keys as one table."""
    together = list(chain.from_iterable(rows.values()))
    names = dict.fromkeys(chain.from_iterable(together))
    try:
        return Dataset.from_dict({name: [row.get(name) for row in together] for name in names})
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
        raise UserError(
            f"{_mixed_column(rows, names)} does not hold the same kind of value in every row ({first_line(error)}); "
            "make the rows alike"
        ) from error


def _mixed_column(rows: Mapping[Path, Sequence[Mapping[str, Any]]], names: Collection[str]) -> str:
    """The first column whose values are of several kinds, and the files in which each kind is first."""
    for name in names:
        kinds: dict[str, Path] = {}
        for file, found in rows.items():
            for row in found:
                kinds.setdefault(_shape(row.get(name)), file)
        kinds.pop("null", None)
        if len(kinds) > 1:
            return f"column '{name}' of {', '.join(dict.fromkeys(str(file) for file in kinds.values()))}"
    return ", ".join(map(str, rows))


def _shape(value: Any) -> str:
    """Kind of a JSON value, numbers of either type alike."""
    if value is None:
        return "null"
    return "number" if isinstance(value, int | float) else type(value).__name__

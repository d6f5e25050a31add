"""Where the rows come from: the Hugging Face hub, or a local file or folder that stands in for it."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import datasets
import pyarrow
import pyarrow.parquet
from datasets import Dataset, DatasetDict, Features

from dschat.checksums import file_sha256
from dschat.data.cache import content_key, quiet_datasets
from dschat.data.json_rows import BadRows, iter_json_rows, read_json_rows
from dschat.errors import UserError

_SUFFIXES = (".parquet", ".json", ".jsonl")
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
_SPLIT_WORDS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"
)
_ROWS_THAT_SHOW_COLUMNS = 64


class Source(Protocol):
    """Something that holds the raw rows of a dataset."""

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Rows by split ("train", "validation", "test"); JSON rows must hold text in `text_columns`."""

    def fingerprint(self) -> str:
        """A key that changes with the content."""


@dataclass(frozen=True)
class HubSource:
    """A dataset of the Hugging Face hub."""

    name: str
    config: str | None

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Download, or read from the datasets library's own cache.

        Raises:
            UserError: it cannot be had; says to pass a local folder.
        """
        try:
            try:
                loaded = datasets.load_dataset(self.name, self.config)
            except RuntimeError:
                # A repository that is still a loading script, which datasets >= 4 refuses to run; the hub keeps its
                # own conversion of such repositories to parquet on this branch.
                loaded = datasets.load_dataset(self.name, self.config, revision="refs/convert/parquet")
        except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
            raise UserError(
                f"dataset {self.name} could not be loaded from the Hugging Face hub ({_first_line(error)}); without "
                "network, pass a local copy instead: --data_path FOLDER --data_format "
                f"{self.name}, a folder with train and validation files in parquet, json or jsonl"
            ) from error
        return canonical_splits(loaded)

    def fingerprint(self) -> str:
        """Key of the revision that is loaded."""
        return content_key({name: split._fingerprint for name, split in self.splits(()).items()})


@dataclass(frozen=True)
class FileSource:
    """Local parquet, json or jsonl files."""

    files: Mapping[str, tuple[Path, ...]]
    """Files of each split; a split's files have one suffix."""
    cache_dir: Path
    """Where parquet is unpacked to memory-mapped Arrow."""
    bad_rows: BadRows = field(default_factory=BadRows, compare=False)
    """Takes the rows of JSON files that cannot be read."""

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Read the files.

        Raises:
            UserError: a file cannot be read, or a JSON line is at fault.
        """
        self.bad_rows.count = 0
        return {split: self._read(files, text_columns) for split, files in self.files.items()}

    def _read(self, files: Sequence[Path], text_columns: Sequence[str]) -> Dataset:
        if files[0].suffix == ".parquet":
            return _read_parquet(files, self.cache_dir)
        return _rows_to_dataset(
            [row for file in files for row in read_json_rows(file, text_columns=text_columns, bad=self.bad_rows)],
            files,
        )

    def features(self) -> Features:
        """Columns and their types, from the beginning of the first file."""
        first = next(iter(self.files.values()))[0]
        if first.suffix == ".parquet":
            return Features.from_arrow_schema(_parquet_schema(first))
        rows = iter_json_rows(first, bad=BadRows(self.bad_rows.limit))
        return _rows_to_dataset([row for _, row in islice(rows, _ROWS_THAT_SHOW_COLUMNS)], [first]).features

    def fingerprint(self) -> str:
        """Key of the files' content and of the split each is in."""
        return content_key({split: [file_sha256(file) for file in files] for split, files in self.files.items()})


@dataclass(frozen=True)
class SavedSource:
    """A folder written by `Dataset.save_to_disk` or `DatasetDict.save_to_disk`."""

    folder: Path

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Memory-map the folder.

        Raises:
            UserError: the folder is not whole.
        """
        try:
            loaded = datasets.load_from_disk(str(self.folder))
        except (OSError, ValueError, KeyError, pyarrow.ArrowInvalid) as error:
            raise UserError(
                f"{self.folder} looks like a folder of Dataset.save_to_disk but cannot be read "
                f"({_first_line(error)}); save it again, or pass parquet, json or jsonl files"
            ) from error
        return canonical_splits(loaded if isinstance(loaded, DatasetDict) else {"train": loaded})

    def features(self) -> Features:
        """Columns and their types."""
        return next(iter(self.splits(()).values())).features

    def fingerprint(self) -> str:
        """Key of the content of every file."""
        files = sorted(file for file in self.folder.rglob("*") if file.is_file())
        return content_key({str(file.relative_to(self.folder)): file_sha256(file) for file in files})


LocalSource = FileSource | SavedSource


def local_source(path: Path, *, configs: Collection[str], cache_dir: Path, skip_bad_rows: int = 0) -> LocalSource:
    """Find the data of an existing file or folder.

    Args:
        path: a parquet, json or jsonl file; a `save_to_disk` folder; or a folder with files whose names (or whose
            folders' names) tell the split: train, validation / valid / dev / eval, test. A lone file, or files without
            a split in their names, are the train split.
        configs: names of sub-folders to prefer where a folder holds several sets, as hub repositories do.
        cache_dir: for unpacked parquet.
        skip_bad_rows: rows of JSON files that may be left out because they cannot be read.
    Raises:
        UserError: nothing readable there, or more than one set.
    """
    if path.is_file():
        if path.suffix not in _SUFFIXES:
            raise UserError(
                f"{path.absolute()} is not a data file of a kind that can be read; pass parquet, json or jsonl"
            )
        return FileSource({"train": (path,)}, cache_dir, BadRows(skip_bad_rows))
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return SavedSource(path)
    files = _data_files(path, path, configs)
    named = {file: split for file in files if (split := _split_of(file, path)) is not None}
    chosen = named or dict.fromkeys(files, "train")
    splits: dict[str, tuple[Path, ...]] = {}
    for file, split in sorted(chosen.items()):
        splits[split] = (*splits.get(split, ()), file)
    for split, members in splits.items():
        if len({file.suffix for file in members}) > 1:
            names = ", ".join(file.name for file in members)
            raise UserError(f"{path.absolute()} holds its {split} split in several formats ({names}); keep one of them")
    if "train" not in splits:
        names = ", ".join(str(file.relative_to(path)) for file in files)
        raise UserError(f"{path.absolute()} has no train file (found: {names}); name one train.jsonl or train.parquet")
    return FileSource(splits, cache_dir, BadRows(skip_bad_rows))


def missing_path_error(path: str) -> UserError:
    """The error for a local path that is not there: what was tried and the nearest name that exists."""
    absolute = Path(path).expanduser().absolute()
    parent = absolute.parent
    missing = absolute.name
    while not parent.is_dir():
        parent, missing = parent.parent, parent.name
    near = difflib.get_close_matches(missing, [entry.name for entry in parent.iterdir()], n=1, cutoff=0.5)
    hint = f"did you mean {parent / near[0]}?" if near else f"check the path: {parent} is the part of it that exists"
    return UserError(f"--data_path {path}: there is no {absolute}; {hint}")


def canonical_splits(splits: Mapping[str, Dataset]) -> dict[str, Dataset]:
    """Splits under the names "train", "validation" and "test"; the first of several with one meaning is kept."""
    result: dict[str, Dataset] = {}
    for name, split in splits.items():
        result.setdefault(_SPLIT_WORDS.get(str(name), str(name)), split)
    return result


def _data_files(folder: Path, root: Path, configs: Collection[str]) -> list[Path]:
    """The data files of one set: those of the folder and of its split folders, else those of its only set below."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    split_folders = [entry for entry in entries if entry.is_dir() and entry.name in _SPLIT_WORDS]
    files = [file for place in [folder, *split_folders] for file in sorted(place.iterdir()) if _is_data_file(file)]
    if files:
        return files
    below = [entry for entry in entries if entry.is_dir() and any(_is_data_file(file) for file in entry.rglob("*"))]
    preferred = [entry for entry in below if entry.name in configs] or below
    if len(preferred) == 1:
        return _data_files(preferred[0], root, configs)
    if below:
        names = ", ".join(entry.name for entry in below)
        raise UserError(f"{folder.absolute()} holds several sets of data ({names}); pass one of them as --data_path")
    found = ", ".join(entry.name for entry in entries[:8]) or "nothing"
    raise UserError(f"{root.absolute()} has no parquet, json or jsonl file (found: {found}); add train.jsonl to it")


def _is_data_file(path: Path) -> bool:
    return path.suffix in _SUFFIXES and path.name not in _NOT_DATA and path.is_file()


def _split_of(file: Path, root: Path) -> str | None:
    """The split that a file's name tells, else that of the folders above it, the nearest first."""
    for name in (file.stem, *reversed(file.relative_to(root).parent.parts)):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in _SPLIT_WORDS:
                return _SPLIT_WORDS[word]
    return None


def _parquet_schema(file: Path) -> pyarrow.Schema:
    try:
        return pyarrow.parquet.read_schema(file)
    except (OSError, pyarrow.ArrowInvalid) as error:
        raise UserError(
            f"{file.absolute()} is not a whole parquet file ({_first_line(error)}); write it again"
        ) from error


def _read_parquet(files: Sequence[Path], cache_dir: Path) -> Dataset:
    for file in files:
        _parquet_schema(file)
    try:
        with quiet_datasets():
            return Dataset.from_parquet([str(file) for file in files], cache_dir=str(cache_dir / "parquet"))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        names = ", ".join(str(file.absolute()) for file in files)
        raise UserError(
            f"{names} could not be read as one table ({_first_line(error)}); write the files again"
        ) from error


def _rows_to_dataset(rows: Sequence[Mapping[str, Any]], files: Sequence[Path]) -> Dataset:
    """Rows that may lack keys as one table."""
    names = dict.fromkeys(name for row in rows for name in row)
    try:
        return Dataset.from_dict({name: [row.get(name) for row in rows] for name in names})
    except (pyarrow.ArrowException, OverflowError, TypeError, ValueError) as error:
        mixed = [name for name in names if len({_shape(row.get(name)) for row in rows} - {"null"}) > 1]
        where = f"column '{mixed[0]}' of " if mixed else ""
        raise UserError(
            f"{where}{', '.join(str(file) for file in files)} does not hold the same kind of value in every row "
            f"({_first_line(error)}); make the rows alike"
        ) from error


def _shape(value: Any) -> str:
    """Kind of a JSON value, numbers of either type alike."""
    if value is None:
        return "null"
    return "number" if isinstance(value, int | float) else type(value).__name__


def _first_line(error: BaseException) -> str:
    """The first line of an error's text, without the end that would break a sentence."""
    lines = str(error).strip().splitlines()
    text = lines[0] if lines else type(error).__name__
    return json.dumps(text, ensure_ascii=False)[1:-1].replace('\\"', '"')[:200].rstrip(". ")

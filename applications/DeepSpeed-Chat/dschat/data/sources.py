"""Where the rows come from: the Hugging Face hub, or a local file or folder that stands in for it."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import datasets
import pyarrow
from datasets import Dataset, DatasetDict, Features

from dschat.checksums import file_sha256
from dschat.data.cache import content_key
from dschat.data.folders import SPLIT_WORDS, files_of_splits, is_table
from dschat.data.json_rows import BadRows
from dschat.data.tables import columns_of, first_line, read_rows, read_tables
from dschat.errors import UserError

logger = logging.getLogger(__name__)


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
                f"dataset {self.name} could not be loaded from the Hugging Face hub ({first_line(error)}); without "
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
    """Files of each split, of which either all or none are parquet."""
    cache_dir: Path
    """Where parquet is unpacked to memory-mapped Arrow."""
    bad_rows: BadRows = field(default_factory=BadRows, compare=False)
    """Takes the rows of JSON files that cannot be read."""

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Read the files; the log says how many rows each gave, where there are several.

        Raises:
            UserError: a file cannot be read, a JSON line is at fault, or the files of a split do not fit together.
        """
        self.bad_rows.count = 0
        return {split: self._read(split, files, text_columns) for split, files in self.files.items()}

    def _read(self, split: str, files: Sequence[Path], text_columns: Sequence[str]) -> Dataset:
        if is_table(files[0]):
            rows, counts = read_tables(files, text_columns=text_columns, cache_dir=self.cache_dir)
        else:
            rows, counts = read_rows(files, text_columns=text_columns, bad=self.bad_rows)
        if sum(map(len, self.files.values())) > 1:
            for file, count in zip(files, counts, strict=True):
                logger.info("%s rows of %s (%s)", f"{count:,}", file.absolute(), split)
        return rows

    def features(self) -> Features:
        """Columns and their types, from the beginning of the first train file that has rows."""
        return columns_of(self.files["train"], bad=BadRows(self.bad_rows.limit))

    def names(self, split: str) -> str:
        """The files of a split, for messages."""
        return ", ".join(str(file.absolute()) for file in self.files[split])

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
                f"({first_line(error)}); save it again, or pass parquet, json or jsonl files"
            ) from error
        except IndexError as error:  # the library's answer to a split that was saved without rows
            raise UserError(
                f"{self.folder} holds a split without a row; save it again with rows or without the split"
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
        path: a `save_to_disk` folder, or what `files_of_splits` takes.
        configs: see there.
        cache_dir: for unpacked parquet.
        skip_bad_rows: rows of JSON files that may be left out because they cannot be read.
    Raises:
        UserError: nothing readable there, more than one set, or a file that would be left out.
    """
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        return SavedSource(path)
    return FileSource(files_of_splits(path, configs), cache_dir, BadRows(skip_bad_rows))


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
        meaning = SPLIT_WORDS.get(str(name), str(name))
        if meaning in result:
            logger.warning("the split %s with %s rows is not used, as another is the %s split", name, f"{len(split):,}",
                           meaning)  # fmt: skip
        result.setdefault(meaning, split)
    return result

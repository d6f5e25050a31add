"""Which files of a folder are data, and which split each is; no file that looks like data is left out unsaid.

Data are `.parquet`, `.json`, `.jsonl`, the last two also with `.gz` or `.zst` behind. A word in the file's name, else
in the names of the folders above it, tells the split: train, training; test; validation, valid, val, dev, eval,
evaluation. Where no name has such a word, all files are the train split; where some have and others have not, nobody
knows what the others are, and the folder is refused.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import chain
from pathlib import Path

from dschat.data.compression import COMPRESSIONS, plain_stem, plain_suffix
from dschat.errors import UserError

logger = logging.getLogger(__name__)

SPLIT_WORDS = {"train": "train", "training": "train", "test": "test"} | dict.fromkeys(
    ("validation", "valid", "val", "dev", "eval", "evaluation"), "validation"
)
READABLE = "parquet, json or jsonl (json and jsonl also with .gz or .zst)"

_TABLES, _ROWS = (".parquet",), (".json", ".jsonl")
_UNREADABLE_TABLES = frozenset(
    {".csv", ".tsv", ".ndjson", ".arrow", ".feather", ".orc", ".avro", ".xlsx", ".xls", ".pkl"}
)
_UNREADABLE_PACKS = frozenset({".bz2", ".xz", ".lz4", ".zip", ".7z", ".rar", ".tar", ".tgz", ".zstd", ".gzip"})
_NOT_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
_NAMES_SHOWN = 8


def is_table(path: Path) -> bool:
    """Whether the file is of a kind that holds typed columns, else rows of JSON."""
    return path.suffix.lower() in _TABLES


def is_readable(path: Path) -> bool:
    """Whether the file's suffix is that of data that can be read."""
    return is_table(path) or plain_suffix(path) in _ROWS


def is_data_file(path: Path) -> bool:
    """Whether a file of a folder is data that can be read, and not about the data."""
    return path.name not in _NOT_DATA and is_readable(path) and path.is_file()


def _is_unreadable_data(path: Path) -> bool:
    """Whether the file looks like data in a form that cannot be read."""
    suffix = path.suffix.lower()
    packed_otherwise = suffix in COMPRESSIONS and plain_suffix(path) in {*_TABLES, *_UNREADABLE_TABLES, ""}
    return path.is_file() and (packed_otherwise or suffix in _UNREADABLE_TABLES | _UNREADABLE_PACKS)


def files_of_splits(path: Path, configs: Collection[str]) -> dict[str, tuple[Path, ...]]:
    """The data files of each split ("train", "validation", "test") of an existing file or folder.

    Args:
        path: a file, which is the train split, or a folder as above.
        configs: names of sub-folders to prefer where a folder holds several sets, as hub repositories do.
    Raises:
        UserError: nothing readable there, more than one set, or a file that would be left out.
    """
    if path.is_file():
        if not is_readable(path):
            raise UserError(f"{path.absolute()} is not a data file of a kind that can be read; pass {READABLE}")
        return {"train": (path,)}
    files = sorted(_data_files(path, path, configs))
    known = {file: split for file in files if (split := _split_of(file, path)) is not None}
    unknown = [file for file in files if file not in known]
    if known and unknown:
        raise UserError(
            f"{path.absolute()} has files whose names tell the split, and {_listed(unknown, path)}, whose do not; "
            f"call it train-{unknown[0].name} (or validation-…, test-…), or move it elsewhere"
        )
    splits: dict[str, tuple[Path, ...]] = {}
    for file in files:
        split = known.get(file, "train")
        splits[split] = (*splits.get(split, ()), file)
    for split, members in splits.items():
        _check_alike(split, members, path)
    if "train" not in splits:
        found = _listed(files, path)
        raise UserError(f"{path.absolute()} has no train file (found: {found}); name one train.jsonl or train.parquet")
    return splits


def _check_alike(split: str, members: Sequence[Path], root: Path) -> None:
    """Refuse a split whose files are of two kinds, or look like one file twice."""
    if len({is_table(file) for file in members}) > 1:
        raise UserError(
            f"{root.absolute()} holds its {split} split in several formats ({_listed(members, root)}); keep one of them"
        )
    counts = Counter((file.parent, plain_stem(file)) for file in members)
    twins = [file for file in members if counts[file.parent, plain_stem(file)] > 1]
    if twins:
        raise UserError(
            f"{root.absolute()} holds {_listed(twins, root)}, which look like the same rows several times; keep one, "
            "or rename them"
        )


def _data_files(folder: Path, root: Path, configs: Collection[str]) -> list[Path]:
    """The data files of one set: those of the folder and of its split folders, else those of its only set below."""
    entries = _entries(folder)
    split_folders = [entry for entry in entries if entry.is_dir() and entry.name.lower() in SPLIT_WORDS]
    inside = list(chain(entries, *map(_entries, split_folders)))
    files = [entry for entry in inside if is_data_file(entry)]
    others = [entry for entry in inside if _is_unreadable_data(entry)]
    folders = [entry for entry in inside if entry.is_dir() and entry not in split_folders]
    below = [entry for entry in folders if any(map(is_data_file, entry.rglob("*")))]
    if others and (files or below):
        raise UserError(
            f"{root.absolute()} holds {_listed(others, root)} beside data that can be read; convert to {READABLE}, or "
            "move elsewhere what is no data of this set"
        )
    if files:
        _name_unread(below, root)
        return files
    preferred = [entry for entry in below if entry.name in configs] or below
    if len(preferred) == 1:
        _name_unread([entry for entry in below if entry not in preferred], root)
        return _data_files(preferred[0], root, configs)
    if below:
        names = _listed(below, folder)
        raise UserError(f"{folder.absolute()} holds several sets of data ({names}); pass one of them as --data_path")
    names = _listed(entries, folder) or "nothing"
    raise UserError(f"{root.absolute()} has no parquet, json or jsonl file (found: {names}); add train.jsonl to it")


def _name_unread(folders: Sequence[Path], root: Path) -> None:
    if folders:
        logger.warning("%s: files in %s are not read; pass such a folder as --data_path to read it",
                       root.absolute(), _listed(folders, root))  # fmt: skip


def _entries(folder: Path) -> list[Path]:
    """What is in the folder, in order; hidden entries are not."""
    return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))


def _split_of(file: Path, root: Path) -> str | None:
    """The split that a file's name tells, else that of the folders above it, the nearest first."""
    for name in (plain_stem(file), *reversed(file.relative_to(root).parent.parts)):
        for word in re.split(r"[^a-z]+", name.lower()):
            if word in SPLIT_WORDS:
                return SPLIT_WORDS[word]
    return None


def _listed(paths: Sequence[Path], root: Path) -> str:
    names = [str(path.relative_to(root)) for path in paths]
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return ", ".join(names[:_NAMES_SHOWN]) + more

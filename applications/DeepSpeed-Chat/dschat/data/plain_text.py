"""Plain text for the pretraining loss of PPO-ptx: tokenised, put end to end, and cut into blocks of equal length."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, Features, List, Value
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.checksums import file_sha256
from dschat.data.cache import cached_folder, code_key, content_key, quiet_datasets
from dschat.data.compression import plain_suffix, read_unpacked
from dschat.data.folders import is_data_file
from dschat.data.order import epoch_order
from dschat.data.sources import HubSource, local_source
from dschat.data.tokenise import TextEncoder
from dschat.errors import UserError

logger = logging.getLogger(__name__)

_FLAG = "--unsupervised_dataset_name"
_TEXT_SUFFIX = ".txt"
_TEXT_COLUMN = "text"
_ROWS_AT_ONCE = 1_000
_FEATURES = Features({"input_ids": List(Value("int32"))})


@dataclass(frozen=True)
class TextSource:
    """Which text, in plain values."""

    name: str
    """A file or folder (txt, json, jsonl, parquet, all but the last also with .gz or .zst), or a dataset of the hub,
    whose train split is taken."""
    config_name: str | None
    """The hub dataset's configuration."""
    num_workers: int
    """Processes that tokenise."""
    cache_dir: Path


@dataclass(frozen=True)
class TextBlocks:
    """Blocks of L tokens, visited in passes, each in another seeded order."""

    blocks: Sequence[Mapping[str, Any]]
    """Rows {"input_ids": L ints}."""
    seed: int

    def rows(self, start: int, count: int) -> Tensor:
        """[N, L] int64, N = `count` blocks from number `start` on of an endless sequence: pass follows pass."""
        chosen: list[list[int]] = []
        for number in range(start, start + count):
            epoch, within = divmod(number, len(self.blocks))
            if not chosen or within == 0:
                order = epoch_order(len(self.blocks), seed=self.seed, epoch=epoch)
            chosen.append(self.blocks[int(order[within])]["input_ids"])
        return torch.tensor(chosen, dtype=torch.int64)


def build_blocks(source: TextSource, *, tokenizer: PreTrainedTokenizerBase, block_length: int, seed: int) -> TextBlocks:
    """Read, tokenise and cut text, or find the blocks in the cache.

    A row gets the special tokens that the tokenizer puts around a text; what is left at the end, less than a block, is
    dropped.

    Args:
        source: which text.
        tokenizer: of the model that is trained.
        block_length: L.
        seed: of the order.
    Raises:
        UserError: the text is missing, unreadable, or shorter than a block.
    """
    encoder = TextEncoder.create(tokenizer, end_of_conversation=None, max_length=block_length)
    rows, fingerprint = _read(source)
    key = content_key({"code": code_key(), "text": fingerprint, "encoder": encoder.fingerprint()})

    def write(folder: Path) -> None:
        with quiet_datasets():
            _cut(_tokenised(rows, tokenizer, source.num_workers), block_length, source.name).save_to_disk(str(folder))

    folder = cached_folder(source.cache_dir, f"text_{key}", write)
    blocks = datasets.load_from_disk(str(folder))
    logger.info("%s: %s blocks of %d tokens", source.name, f"{len(blocks):,}", block_length)
    return TextBlocks(blocks, seed)


def _read(source: TextSource) -> tuple[Dataset, str]:
    """One column of text, and a key of its content."""
    path = Path(source.name).expanduser()
    if not path.exists():
        hub = HubSource(source.name, source.config_name)
        try:
            return _text_column(hub.splits(()), source.name), hub.fingerprint()
        except UserError as error:
            raise UserError(
                f"{_FLAG} {source.name} is no file or folder here and could not be loaded from the Hugging Face hub; "
                "pass a local txt, json, jsonl or parquet file, or a folder of them"
            ) from error
    files = sorted(file for file in ([path] if path.is_file() else path.rglob("*")) if _is_text_file(file))
    if files:
        if path.is_dir():
            _check_text_alone(files)
        paragraphs = list(chain.from_iterable(_paragraphs(file) for file in files))
        return Dataset.from_dict({_TEXT_COLUMN: paragraphs}), content_key({"txt": [file_sha256(f) for f in files]})
    configs = [source.config_name] if source.config_name else []
    local = local_source(path, configs=configs, cache_dir=source.cache_dir)
    return _text_column(local.splits(()), source.name), local.fingerprint()


def _is_text_file(path: Path) -> bool:
    return plain_suffix(path) == _TEXT_SUFFIX and path.is_file()


def _check_text_alone(files: Sequence[Path]) -> None:
    """Refuse tables beside text, which would be left out."""
    for folder in sorted({file.parent for file in files}):
        for other in filter(is_data_file, sorted(folder.iterdir())):
            raise UserError(f"{_FLAG}: {other.absolute()} lies beside text files; keep one kind, or pass a single file")


def _paragraphs(file: Path) -> list[str]:
    """The parts of a text file between blank lines."""
    try:
        text = read_unpacked(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{_FLAG}: {file.absolute()} is not readable as UTF-8 text ({error}); convert it") from error
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return [part for part in re.split(r"\n\s*\n", text) if part.strip()]


def _text_column(splits: Mapping[str, Dataset], name: str) -> Dataset:
    """The column `text`, or the first one, of the train split."""
    if "train" not in splits:
        raise UserError(f"{_FLAG} {name} has no train split (it has {', '.join(splits)}); choose a dataset with one")
    rows = splits["train"]
    if len(rows) == 0:
        raise UserError(f"{_FLAG} {name} has no row; add text")
    column = _TEXT_COLUMN if _TEXT_COLUMN in rows.column_names else rows.column_names[0]
    if getattr(rows.features[column], "dtype", None) not in ("string", "large_string"):
        raise UserError(f"{_FLAG} {name}: its column {column} holds no text; call the one that does {_TEXT_COLUMN}")
    return rows.select_columns([column])


def _tokenised(rows: Dataset, tokenizer: PreTrainedTokenizerBase, num_workers: int) -> Dataset:
    """The ids of every row, of one column, that is not blank."""
    [column] = rows.column_names

    def encode(batch: Mapping[str, list[str | None]]) -> dict[str, list[list[int]]]:
        texts = [text for text in batch[column] if text and text.strip()]
        return {"input_ids": tokenizer(texts, verbose=False)["input_ids"] if texts else []}

    return rows.map(
        encode, batched=True, remove_columns=[column], features=_FEATURES, keep_in_memory=True,
        num_proc=num_workers if num_workers > 1 else None,
    )  # fmt: skip


def _cut(rows: Dataset, length: int, name: str) -> Dataset:
    """Blocks of `length` ids from all rows end to end."""
    pieces = [Dataset.from_dict({"input_ids": blocks}, features=_FEATURES) for blocks in _blocks(rows, length)]
    found = datasets.concatenate_datasets(pieces) if pieces else []
    if len(found) == 0:
        raise UserError(
            f"{_FLAG} {name} holds less than one block of {length} tokens (--max_prompt_seq_len and "
            "--max_answer_seq_len together); add text"
        )
    return found


def _blocks(rows: Dataset, length: int) -> Iterator[list[list[int]]]:
    left: list[int] = []
    for batch in rows.iter(batch_size=_ROWS_AT_ONCE):
        left.extend(chain.from_iterable(batch["input_ids"]))
        end = len(left) - len(left) % length
        yield [left[start : start + length] for start in range(0, end, length)]
        left = left[end:]

"""Plain text as blocks, from every kind of source."""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import datasets
import pytest
from datasets import Dataset, DatasetDict

from dschat.data import sources
from dschat.data.plain_text import TextBlocks, TextSource, build_blocks
from dschat.errors import UserError
from tests.data.helpers import packed
from toys.tokenizers import make_tokenizer

LENGTH = 7
TOKENIZER = make_tokenizer()
TEXTS = [f"the old cat number {i} sees a red bird and a blue house" for i in range(23)]


def blocks_of(name: Path | str, folder: Path, *, workers: int = 1, length: int = LENGTH) -> TextBlocks:
    source = TextSource(str(name), None, workers, folder / "cache")
    return build_blocks(source, tokenizer=TOKENIZER, block_length=length, seed=3)


def expected(texts: list[str]) -> list[list[int]]:
    """Tokenised one by one, end to end, cut."""
    ids = list(chain.from_iterable(TOKENIZER(text)["input_ids"] for text in texts))
    return [ids[start : start + LENGTH] for start in range(0, len(ids) - LENGTH + 1, LENGTH)]


def write(kind: str, folder: Path) -> Path:
    rows = [{"text": text, "other": "x"} for text in TEXTS]
    match kind:
        case "txt":
            path = folder / "corpus.txt"
            path.write_text("\n\n".join(TEXTS) + "\n \n\n")
        case "txt.gz" | "txt.zst":
            path = folder / f"corpus.{kind}"
            path.write_bytes(packed("\r\n\r\n".join(TEXTS).encode(), kind))
        case "txt folder":
            path = folder / "corpus"
            (path / "below").mkdir(parents=True)
            (path / "1.txt").write_text("\n\n".join(TEXTS[:9]))
            (path / "2.txt.gz").write_bytes(packed("\n\n".join(TEXTS[9:15]).encode(), ".gz"))
            (path / "below" / "3.txt").write_text("\n\n".join(TEXTS[15:]))
        case "jsonl":
            path = folder / "corpus.jsonl"
            path.write_text("\n".join(json.dumps(row) for row in [*rows, {"text": " ", "other": "x"}]))
        case "json":
            path = folder / "corpus.json"
            path.write_text(json.dumps(rows))
        case "parquet":
            path = folder / "corpus.parquet"
            Dataset.from_list(rows).to_parquet(str(path))
        case _:
            path = folder / "saved"
            DatasetDict({"train": Dataset.from_dict({"content": TEXTS})}).save_to_disk(str(path))
    return path


@pytest.mark.parametrize("kind", ["txt", "txt.gz", "txt.zst", "txt folder", "jsonl", "json", "parquet", "saved"])
def test_local_text_is_tokenised_joined_and_cut(kind: str, tmp_path: Path) -> None:
    blocks = blocks_of(write(kind, tmp_path), tmp_path)
    assert [row["input_ids"] for row in blocks.blocks] == expected(TEXTS)


def test_a_hub_dataset_gives_its_train_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def load_dataset(name: str, config: str | None) -> DatasetDict:
        asked.append((name, config))
        return DatasetDict(
            {"train": Dataset.from_dict({"text": ["", *TEXTS]}), "test": Dataset.from_dict({"text": ["no"]})}
        )

    monkeypatch.setattr(sources.datasets, "load_dataset", load_dataset)
    source = TextSource("wikitext", "wikitext-2-raw-v1", 1, tmp_path / "cache")
    blocks = build_blocks(source, tokenizer=TOKENIZER, block_length=LENGTH, seed=3)
    assert asked[0] == ("wikitext", "wikitext-2-raw-v1")
    assert [row["input_ids"] for row in blocks.blocks] == expected(TEXTS)


def test_more_workers_change_nothing(tmp_path: Path) -> None:
    path = write("jsonl", tmp_path)
    alone = blocks_of(path, tmp_path / "one")
    together = blocks_of(path, tmp_path / "two", workers=2)
    assert alone.blocks[:] == together.blocks[:]


def test_the_cache_follows_text_and_length(tmp_path: Path) -> None:
    path = write("txt", tmp_path)
    blocks_of(path, tmp_path)
    blocks_of(path, tmp_path)
    assert len(list((tmp_path / "cache").glob("text_*"))) == 1
    path.write_text("\n\n".join(TEXTS[1:]))
    assert [row["input_ids"] for row in blocks_of(path, tmp_path).blocks] == expected(TEXTS[1:])
    blocks_of(path, tmp_path, length=5)
    assert len(list((tmp_path / "cache").glob("text_*"))) == 3


def test_every_pass_visits_every_block_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    blocks = blocks_of(write("txt", tmp_path), tmp_path)
    count = len(blocks.blocks)
    both = [tuple(row) for row in blocks.rows(0, 2 * count).tolist()]
    first, second = both[:count], both[count:]
    assert sorted(first) == sorted(second) == sorted(tuple(row["input_ids"]) for row in blocks.blocks)
    assert first != second
    # any cut of the sequence is the same sequence
    assert [tuple(row) for start in range(2 * count) for row in blocks.rows(start, 1).tolist()] == both
    assert [tuple(row) for row in blocks.rows(count - 2, 5).tolist()] == both[count - 2 : count + 3]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("a b", r"holds less than one block of 7 tokens \(--max_prompt_seq_len and --max_answer_seq_len together\)"),
        ("\n\n \n", "holds less than one block"),
        (b"\xff\xfe\x00", r"bad\.txt is not readable as UTF-8 text"),
    ],
)
def test_text_that_cannot_be_used_is_named(content: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=sentence):
        blocks_of(path, tmp_path)


def test_a_text_that_is_cut_off_is_named(tmp_path: Path) -> None:
    path = write("txt.gz", tmp_path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"corpus\.txt\.gz is damaged or cut off after line"):
        blocks_of(path, tmp_path)


def test_tables_beside_text_are_named_rather_than_left_out(tmp_path: Path) -> None:
    path = write("txt folder", tmp_path)
    (path / "below" / "rows.jsonl").write_text('{"text": "more"}\n')
    with pytest.raises(UserError, match=r"below/rows\.jsonl lies beside text files; keep one kind, or pass a single"):
        blocks_of(path, tmp_path)
    blocks_of(path / "1.txt", tmp_path)


def test_a_table_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.jsonl"
    path.touch()
    with pytest.raises(UserError, match=r"empty\.jsonl has no row; add text"):
        blocks_of(path, tmp_path)


def test_a_table_without_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "numbers.jsonl"
    path.write_text('{"number": 1}\n{"number": 2}\n')
    with pytest.raises(UserError, match="its column number holds no text; call the one that does text"):
        blocks_of(path, tmp_path)


def test_a_name_that_is_nowhere_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(name: str, config: str | None) -> None:
        raise datasets.exceptions.DatasetNotFoundError("offline")

    monkeypatch.setattr(sources.datasets, "load_dataset", unreachable)
    with pytest.raises(UserError, match="--unsupervised_dataset_name nowhere is no file or folder here and could not"):
        blocks_of("nowhere", tmp_path)

"""Whatever a table holds: every row is used or counted by reason, and nothing but one sentence reaches the user."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from dschat.data.collate import collate_pairs, collate_prompts, collate_sft
from dschat.data.report import RowCounts
from dschat.data.splits import grouped_parts, parse_proportions, permutation_parts
from dschat.data.stage_data import StageData, build_stage_data
from dschat.data.stages import PPO, REWARD, SFT, DataStage
from dschat.errors import UserError
from tests.data.helpers import data_source, packed
from tests.fuzz.profiles import fuzzed
from toys.tokenizers import make_tokenizer

GOOD_ROWS = [{"prompt": f"red {n}", "chosen": "cat", "rejected": f"dog {n}"} for n in range(10)]
"""Enough for training and evaluation."""
WORDS = st.sampled_from(["", " ", "red", "red cat", "a longer text about a tree and a house", "é🙂", "\0", "\n"])
CELLS = st.none() | WORDS | st.text(st.characters(codec="utf-8"), max_size=6)
ROWS = st.lists(st.fixed_dictionaries({"prompt": CELLS, "chosen": CELLS, "rejected": CELLS}), min_size=1, max_size=12)
ODD_CELLS = CELLS | st.integers() | st.floats() | st.booleans() | st.lists(st.text(max_size=3), max_size=2)
ODD_ROWS = st.lists(
    st.dictionaries(st.sampled_from(["prompt", "chosen", "rejected", "other"]), ODD_CELLS, max_size=4),
    min_size=1, max_size=8,
)  # fmt: skip
SEEDS = st.integers(0, 9)
ALL_TO = {SFT: "1,0,0", REWARD: "0,1,0", PPO: "0,0,1"}
STEPS = st.sampled_from(list(ALL_TO)).flatmap(
    lambda stage: st.tuples(st.just(stage), st.just(ALL_TO[stage]) | st.sampled_from(["2,4,4", "1,1,1", "10,0.5,3"]))
)
"""A step, and a split that gives it all rows, or some."""


def built(
    path: Path, stage: DataStage, split: str, *, skip: int = 0, max_length: int = 24, total: int | None = None
) -> tuple[StageData, RowCounts] | None:
    """The data of a step and what became of its training rows, None where the user was told why there is none.

    `total` rows are in the file; where the split gives all to this step, all are counted.
    """
    cache = path.parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    source = data_source(path, cache_dir=cache, data_split=split, data_format="local/jsonfile", skip_bad_rows=skip)
    try:
        data = build_stage_data(source, stage=stage, tokenizer=make_tokenizer(), max_length=max_length)
    except UserError as error:
        assert "\n" not in str(error), str(error)
        return None
    for counts in (data.report.train, data.report.evaluation):
        assert counts.rows == counts.kept + sum(counts.dropped().values())
    if total is not None and split == ALL_TO[stage]:
        assert data.report.train.rows + data.report.evaluation.rows == total
    assert len(data.train) == data.report.train.kept
    assert len(data.evaluation) == data.report.evaluation.kept
    return data, data.report.train


def check_batches(data: StageData, stage: DataStage) -> None:
    """All rows in one batch: ids as they were, masks where they are."""
    rows = [data.train[index] for index in range(len(data.train))]
    match stage.name:
        case "sft":
            batch = collate_sft(rows, pad_token_id=0)
            ids = [row["input_ids"] for row in rows]
            assert ((batch.labels == -100) | (batch.labels == batch.input_ids)).all()
        case "reward":
            batch = collate_pairs(rows, pad_token_id=0)
            ids = [row["chosen_ids"] for row in rows] + [row["rejected_ids"] for row in rows]
        case _:
            batch = collate_prompts(rows, pad_token_id=0)
            ids = [row["input_ids"] for row in rows]
            assert [record["prompt"] is not None for record in batch.records] == [True] * len(rows)
    found = [row[mask.bool()].tolist() for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
    assert found == ids


@fuzzed(share=0.15)
@given(ROWS, STEPS, st.sampled_from([[], GOOD_ROWS]))
def test_jsonl_rows_are_used_or_counted(
    tmp_path_factory: Any, rows: list[Any], step: tuple[DataStage, str], more: list[Any]
) -> None:
    stage, split = step
    rows = rows + more
    path = tmp_path_factory.getbasetemp() / "fuzz" / "rows.jsonl"
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = built(path, stage, split, skip=len(rows), total=len(rows))
    if found:
        check_batches(found[0], stage)


@fuzzed(share=0.15)
@given(ODD_ROWS, STEPS, st.sampled_from(["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows.json.zst"]),
       st.sampled_from([[], GOOD_ROWS]))  # fmt: skip
def test_odd_rows_are_used_or_counted(
    tmp_path_factory: Any, rows: list[Any], step: tuple[DataStage, str], name: str, more: list[Any]
) -> None:
    stage, split = step
    rows = rows + more
    folder = tmp_path_factory.getbasetemp() / "fuzz"
    folder.mkdir(exist_ok=True)
    path = folder / name
    text = json.dumps(rows) if ".jsonl" not in name else "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(packed(text.encode(), name))
    for skip in (0, len(rows)):
        found = built(path, stage, split, skip=skip, total=len(rows))
        if found:
            check_batches(found[0], stage)


@fuzzed(share=0.15)
@given(ROWS, STEPS, st.none() | st.integers(4, 400), st.sampled_from([[], GOOD_ROWS]))
def test_parquet_rows_are_used_or_counted(
    tmp_path_factory: Any, rows: list[Any], step: tuple[DataStage, str], cut: int | None, more: list[Any]
) -> None:
    stage, split = step
    rows = rows + more
    path = tmp_path_factory.getbasetemp() / "fuzz" / "rows.parquet"
    path.parent.mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=pa.schema([(name, pa.string()) for name in rows[0]])), path)
    if cut is not None:
        path.write_bytes(path.read_bytes()[:cut])
    found = built(path, stage, split, total=len(rows))
    if found:
        assert cut is None or cut >= path.stat().st_size
        check_batches(found[0], stage)


@fuzzed(share=0.1)
@given(st.binary(max_size=300), st.sampled_from(["rows.parquet", "rows.jsonl", "rows.json.gz", "rows.csv"]))
def test_files_of_anything(tmp_path_factory: Any, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzz" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    built(path, SFT, "1,1,1")


@fuzzed()
@given(st.text(max_size=12) | st.lists(st.floats(), max_size=4).map(lambda parts: ",".join(map(str, parts))))
def test_split_texts(text: str) -> None:
    try:
        proportions = parse_proportions(text)
    except UserError as error:
        assert "--data_split" in str(error)
        return
    parts = permutation_parts(17, proportions, seed=1)
    assert sorted(index for part in parts for index in part) == list(range(17))


@fuzzed()
@given(
    st.lists(st.text(max_size=2), max_size=20), st.lists(st.floats(0, 1e6), min_size=1, max_size=4), st.integers(0, 9)
)
def test_groups_are_never_torn(groups: list[str], proportions: list[float], seed: int) -> None:
    if sum(proportions) == 0:
        return
    parts = grouped_parts(groups, proportions, seed)
    assert sorted(index for part in parts for index in part) == list(range(len(groups)))
    owners = [{groups[index] for index in part} for part in parts]
    assert sum(map(len, owners)) == len(set(groups))

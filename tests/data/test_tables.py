"""Files of one split that are not alike: whole rows, or the file and the column that is at fault."""

from __future__ import annotations

import logging

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dschat.data.json_rows import BadRows
from dschat.data.sources import local_source
from dschat.data.tables import columns_of, read_rows, read_tables
from dschat.errors import UserError
from tests.data.helpers import numbered_rows, write_jsonl, write_parquet

TEXTS = ("prompt", "chosen")


def read(files, tmp_path):
    if files[0].suffix == ".parquet":
        return read_tables(files, text_columns=TEXTS, cache_dir=tmp_path / "cache")
    return read_rows(files, text_columns=TEXTS, bad=BadRows())


def write_empty(path):
    """A file without rows, whose columns have the type of nothing, as pandas writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": pa.nulls(0), "chosen": pa.nulls(0)}), path)
    else:
        path.write_text("\n" if path.suffix == ".jsonl" else "[]")
    return path


def write(path, rows):
    return (write_parquet if path.suffix == ".parquet" else write_jsonl)(path, rows)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_file_without_rows_adds_none(tmp_path, suffix, place):
    files = [write(tmp_path / f"{number}.{suffix}", numbered_rows(3, start=3 * number)) for number in range(2)]
    files.insert(place, write_empty(tmp_path / f"empty.{suffix}"))
    rows, counts = read(files, tmp_path)
    assert rows.to_list() == numbered_rows(6)
    assert counts == [*[3] * place, 0, *[3] * (2 - place)]
    assert list(columns_of(files, bad=BadRows())) == ["prompt", "chosen", "rejected"]


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_files_that_all_lack_rows_give_none(tmp_path, suffix):
    rows, counts = read([write_empty(tmp_path / f"{number}.{suffix}") for number in range(2)], tmp_path)
    assert (len(rows), counts) == (0, [0, 0])


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_column_that_nobody_needs_is_null_where_it_is_lacking_and_the_log_says_so(tmp_path, suffix, caplog):
    caplog.set_level(logging.INFO)
    extra = [row | {"extra": 1} for row in numbered_rows(2, start=2)]
    files = [write(tmp_path / f"a.{suffix}", numbered_rows(2)), write(tmp_path / f"b.{suffix}", extra)]
    rows, _ = read(files, tmp_path)
    assert rows.to_list() == [row | {"extra": None} for row in numbered_rows(2)] + extra
    assert f"a.{suffix} lacks what other files have: extra; null in its rows" in caplog.text


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
@pytest.mark.parametrize("at", [0, 1])
def test_a_needed_column_that_one_file_lacks_is_named_with_the_file(tmp_path, suffix, at):
    names = ["a", "b"]
    files = [write(tmp_path / f"{name}.{suffix}", numbered_rows(2)) for name in names]
    write(files[at], [{"prompt": "p", "response": "c"}] * 2)
    with pytest.raises(UserError) as caught:
        read(files, tmp_path)
    assert str(caught.value) == (
        f"{files[at]} lacks column 'chosen', which {names[1 - at]}.{suffix} has; add it, or move the file away"
    )


def test_a_needed_column_that_no_file_has_is_left_to_the_caller(tmp_path):
    files = [write(tmp_path / f"{name}.parquet", [{"prompt": name}] * 2) for name in "ab"]
    assert len(read(files, tmp_path)[0]) == 4


@pytest.mark.parametrize(
    ("types", "values", "wider"),
    [
        ((pa.int32(), pa.int64()), (1, 2), "int64"),
        ((pa.int64(), pa.float64()), (1, 0.5), "float64"),
        ((pa.string(), pa.large_string()), ("a", "b"), "large_string"),
        ((pa.null(), pa.string()), (None, "b"), "string"),
    ],
)
def test_types_of_which_one_holds_the_other_fit_together(tmp_path, types, values, wider):
    files = []
    for name, kind, value in zip("ab", types, values, strict=True):
        files.append(tmp_path / f"{name}.parquet")
        pq.write_table(pa.table({"prompt": ["p"], "value": pa.array([value], kind)}), files[-1])
    rows, _ = read(files, tmp_path)
    assert rows["value"][:] == list(values)
    assert rows.features["value"].dtype == wider


def test_columns_of_other_types_are_named_with_file_and_types(tmp_path):
    files = [write(tmp_path / "a.parquet", [{"prompt": "p", "score": 1}]),
             write(tmp_path / "b.parquet", [{"prompt": "p", "score": "one"}])]  # fmt: skip
    with pytest.raises(UserError, match=r"column 'score' of .*b\.parquet holds string, that of a\.parquet int64"):
        read(files, tmp_path)


def test_json_columns_of_other_kinds_are_named_with_the_files_that_hold_them(tmp_path):
    rows = numbered_rows(2)
    files = [write(tmp_path / "a.jsonl", rows), write(tmp_path / "b.jsonl", [row | {"score": 1} for row in rows]),
             write(tmp_path / "c.jsonl", [row | {"score": "one"} for row in rows])]  # fmt: skip
    with pytest.raises(UserError) as caught:
        read(files, tmp_path)
    found = f"column 'score' of {tmp_path}/b.jsonl, {tmp_path}/c.jsonl does not hold the same kind of value"
    assert str(caught.value).startswith(found)


@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_the_log_says_how_many_rows_each_of_several_files_gave(tmp_path, suffix, caplog):
    caplog.set_level(logging.INFO)
    root = tmp_path / "data"
    write(root / f"train-0.{suffix}", numbered_rows(3))
    write_empty(root / f"train-1.{suffix}")
    write(root / f"test.{suffix}", numbered_rows(2))
    local_source(root, configs=(), cache_dir=tmp_path / "cache").splits(TEXTS)
    for count, name, split in ((3, "train-0", "train"), (0, "train-1", "train"), (2, "test", "test")):
        assert f"{count} rows of {root}/{name}.{suffix} ({split})" in caplog.text
    caplog.clear()
    local_source(root / f"test.{suffix}", configs=(), cache_dir=tmp_path / "cache").splits(TEXTS)
    assert "rows of" not in caplog.text

"""Every file of a folder that looks like data is read, or named."""

from __future__ import annotations

import pytest

from dschat.data.folders import files_of_splits
from dschat.errors import UserError


def folder_of(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def found(root, *, configs=()):
    return {
        split: [str(file.relative_to(root)) for file in files]
        for split, files in files_of_splits(root, configs).items()
    }


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["b.jsonl", "a.json.gz", "c.jsonl.zst"], {"train": ["a.json.gz", "b.jsonl", "c.jsonl.zst"]}),
        (["train-1.jsonl", "train-2.jsonl.gz", "my_test.json"],
         {"train": ["train-1.jsonl", "train-2.jsonl.gz"], "test": ["my_test.json"]}),
        (["TRAIN.JSONL", "Dev.json.GZ"], {"train": ["TRAIN.JSONL"], "validation": ["Dev.json.GZ"]}),
        (["train/0.parquet", "train/1.parquet", "eval/0.parquet"],
         {"train": ["train/0.parquet", "train/1.parquet"], "validation": ["eval/0.parquet"]}),
        (["train/rows.jsonl", "test-rows.jsonl"], {"train": ["train/rows.jsonl"], "test": ["test-rows.jsonl"]}),
        (["train/part.json", "train/part-2.json"], {"train": ["train/part-2.json", "train/part.json"]}),
        (["train.jsonl", "README.md", "notes.txt", "dataset_infos.json", "config.json", ".hidden.jsonl", "LICENSE"],
         {"train": ["train.jsonl"]}),
    ],
)  # fmt: skip
def test_splits_are_told_by_names_and_no_data_file_is_left_out(tmp_path, names, splits, caplog):
    assert found(folder_of(tmp_path, *names)) == splits
    assert "not read" not in caplog.text


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["train.jsonl", "more.jsonl"],
         r"names tell the split, and more\.jsonl, whose do not; call it train-more\.jsonl .* or move it elsewhere"),
        (["test.jsonl", "rows.jsonl.gz"], r"and rows\.jsonl\.gz, whose do not; call it train-rows\.jsonl\.gz"),
        (["train/a.jsonl", "b.jsonl"], r"and b\.jsonl, whose do not"),
        (["train.jsonl", "rest.csv"], r"holds rest\.csv beside data that can be read; convert to parquet, json or"),
        (["train.jsonl", "train-2.jsonl.bz2"], r"holds train-2\.jsonl\.bz2 beside"),
        (["train.jsonl", "train/rows.parquet.gz"], r"holds train/rows\.parquet\.gz beside"),
        (["train.jsonl", "all.zip"], r"holds all\.zip beside"),
        (["rest.arrow", "sets/train.jsonl"], r"holds rest\.arrow beside"),
        (["train.jsonl", "train.jsonl.gz"], r"holds train\.jsonl, train\.jsonl\.gz, which look like the same rows"),
        (["rows.json", "rows.jsonl"], r"holds rows\.json, rows\.jsonl, which look like the same rows several times"),
        (["a.jsonl", "b.parquet"], r"holds its train split in several formats \(a\.jsonl, b\.parquet\)"),
    ],
)  # fmt: skip
def test_a_file_that_would_be_left_out_or_read_twice_is_named(tmp_path, names, sentence):
    with pytest.raises(UserError, match=sentence) as caught:
        found(folder_of(tmp_path, *names))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize(
    ("names", "splits", "unread"),
    [
        (["train.jsonl", "old/train.jsonl"], {"train": ["train.jsonl"]}, "old"),
        (["train/a.jsonl", "train/deep/b.jsonl"], {"train": ["train/a.jsonl"]}, "train/deep"),
        (["pairs/train.jsonl", "axis/test.jsonl"], {"train": ["pairs/train.jsonl"]}, "axis"),
    ],
)
def test_folders_that_are_not_read_are_named_in_the_log(tmp_path, names, splits, unread, caplog):
    assert found(folder_of(tmp_path, *names), configs={"pairs"}) == splits
    assert f"files in {unread} are not read; pass such a folder as --data_path" in caplog.text


def test_long_lists_of_names_are_shortened(tmp_path):
    with pytest.raises(UserError, match=r"part-7\.jsonl and 4 more, whose do not"):
        found(folder_of(tmp_path, "train.jsonl", *(f"part-{number}.jsonl" for number in "0123456789ab")))


@pytest.mark.parametrize("name", ["state.json", "rows.jsonl.gz", "rows.parquet"])
def test_a_single_file_is_the_train_split(tmp_path, name):
    (tmp_path / name).touch()
    assert files_of_splits(tmp_path / name, ()) == {"train": (tmp_path / name,)}


@pytest.mark.parametrize("name", ["rows.csv", "rows.jsonl.xz", "rows.gz", "rows.parquet.gz", "rows"])
def test_a_single_file_of_another_kind_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"pass parquet, json or jsonl \(json and jsonl also with \.gz or \.zst\)"):
        files_of_splits(tmp_path / name, ())

"""How a --data_path is matched to a dataset; nothing here may touch the network (`data/sources.py`)."""

from __future__ import annotations

import json

import datasets
import pytest

from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.stages import PPO, REWARD
from dschat.errors import UserError
from tests.data.helpers import numbered_rows, write_jsonl, write_parquet
from tests.data.test_raw_datasets import CASES

BUILTIN = ("pydoc-tldr", "tiny-apps")


@pytest.fixture
def hub(monkeypatch):
    """What is asked of the hub; every answer is a dataset of two rows."""
    asked = []

    def load_dataset(name, config=None, **settings):
        asked.append((name, config))
        rows = datasets.Dataset.from_list(numbered_rows(2))
        return datasets.DatasetDict({"train": rows, "test": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def find(path, tmp_path, **settings):
    return find_raw_dataset(str(path), seed=1, cache_dir=tmp_path / "cache", **settings)


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("local/jsonfile", *BUILTIN)])
def test_every_hub_name_is_selectable_and_asks_for_its_repository(tmp_path, hub, name):
    raw = find(name, tmp_path)
    assert raw.hub_name == name
    assert hub == []
    raw.source.splits(())
    repository = "mkqa" if name.startswith("mkqa") else name
    assert hub == [(repository, "comparisons" if "summarize" in name else None)]


@pytest.mark.parametrize(
    ("path", "name", "repository"),
    [
        ("summarize_from_feedback", "openai/summarize_from_feedback", "openai/summarize_from_feedback"),
        ("someone/summarize_from_feedback_v2", "openai/summarize_from_feedback", "someone/summarize_from_feedback_v2"),
        ("someone/full-hh-rlhf", "Dahoas/full-hh-rlhf", "someone/full-hh-rlhf"),
        ("someone/SHP-2", "stanfordnlp/SHP", "someone/SHP-2"),
    ],
)
def test_part_of_a_name_selects_its_class(tmp_path, hub, path, name, repository):
    raw = find(path, tmp_path)
    raw.source.splits(())
    assert raw.hub_name == name
    assert hub[0][0] == repository


def test_the_word_apps_alone_selects_nothing(tmp_path):
    with pytest.raises(UserError, match="neither a local file or folder nor supported"):
        find("someone/my_apps_data", tmp_path)


def test_unknown_name_lists_near_and_supported_names(tmp_path):
    with pytest.raises(UserError) as caught:
        find("dahoas/rm_static", tmp_path)
    message = str(caught.value)
    assert "did you mean Dahoas/rm-static" in message
    assert all(name in message for name in CASES)
    assert "\n" not in message


def test_any_hub_name_can_be_read_in_a_supported_format(tmp_path, hub):
    raw = find("someone/pairs", tmp_path, data_format="local/jsonfile")
    splits = raw.load(REWARD.texts)
    assert hub[0][0] == "someone/pairs"
    assert raw.prompt(splits.train[0]) == " Human: question 0? Assistant:"


def test_evaluation_split_of_the_hub_without_rows_is_told(tmp_path, monkeypatch):
    rows = datasets.Dataset.from_list(numbered_rows(2))
    splits = datasets.DatasetDict({"train": rows, "test": rows.select([])})
    monkeypatch.setattr(datasets, "load_dataset", lambda name, config: splits)
    with pytest.raises(UserError, match="the test split of dataset Dahoas/rm-static has no row; add rows, or"):
        find("Dahoas/rm-static", tmp_path).load()


def test_unknown_format_is_refused(tmp_path):
    write_jsonl(tmp_path / "rows.jsonl", numbered_rows(2))
    with pytest.raises(UserError, match="--data_format csv is not a supported dataset"):
        find(tmp_path / "rows.jsonl", tmp_path, data_format="csv")


@pytest.mark.parametrize(
    "path",
    [
        "./rowz.jsonl",
        "/nowhere/at/all",
        "../no/such",
        "~/no-such-file-here",
        "a/b/c",
        "rowz.jsonl",
        "rowz.json.gz",
        "data/sub",
    ],
)
def test_missing_path_is_never_looked_up_on_the_hub(tmp_path, monkeypatch, hub, path):
    write_jsonl(tmp_path / "rows.jsonl", numbered_rows(2))
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="there is no /"):
        find(path, tmp_path).load()
    assert hub == []


def test_missing_path_names_the_nearest_one(tmp_path):
    write_jsonl(tmp_path / "tldr" / "rows.jsonl", numbered_rows(2))
    with pytest.raises(UserError) as caught:
        find(tmp_path / "tldr" / "row.jsonl", tmp_path)
    assert f"there is no {tmp_path}/tldr/row.jsonl; did you mean {tmp_path}/tldr/rows.jsonl?" in str(caught.value)
    with pytest.raises(UserError) as caught:
        find(tmp_path / "tdlr" / "deep" / "row.jsonl", tmp_path)
    assert f"did you mean {tmp_path}/tldr?" in str(caught.value)


def test_hub_that_cannot_be_reached_is_answered_with_the_local_way(tmp_path, monkeypatch):
    def load_dataset(*arguments, **settings):
        raise ConnectionError("Couldn't reach 'x' on the Hub\nmore lines")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(UserError) as caught:
        find("Dahoas/rm-static", tmp_path).load()
    message = str(caught.value)
    assert "--data_path FOLDER --data_format Dahoas/rm-static" in message
    assert "\n" not in message


def test_repository_that_is_a_script_is_read_from_the_hubs_parquet_copy(tmp_path, monkeypatch):
    asked = []

    def load_dataset(name, config, revision=None):
        asked.append(revision)
        if revision is None:
            raise RuntimeError("Dataset scripts are no longer supported, but found apps.py")
        rows = datasets.Dataset.from_list([CASES["codeparrot/apps"][0]] * 2)
        return datasets.DatasetDict({"train": rows, "test": rows})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(find("codeparrot/apps", tmp_path).load(PPO.texts).train) == 2
    assert asked == [None, "refs/convert/parquet"]


@pytest.mark.parametrize("name", ["openai/webgpt_comparisons", "Cohere/miracl-ja-queries-22-12", "mkqa-Japanese"])
def test_folder_named_like_a_dataset_is_read_as_it(tmp_path, name):
    for folder in (tmp_path / name, tmp_path / name.replace("/", "--")):
        write_jsonl(folder / "train.jsonl", [CASES[name][0]] * 3)
        assert find(folder, tmp_path).hub_name == name


def test_compressed_file_named_like_a_dataset_is_read_as_it(tmp_path):
    path = write_jsonl(tmp_path / "rm-static.jsonl.gz", numbered_rows(3))
    assert find(path, tmp_path).hub_name == "Dahoas/rm-static"


# What the columns alone tell; the pairs of prompt / chosen / rejected sets are told apart by --data_format only.
TOLD_BY_COLUMNS = {
    name: "local/jsonfile" if {"prompt", "chosen", "rejected"} <= set(row) else name for name, (row, _) in CASES.items()
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", [name for name in CASES if not name.startswith(("Cohere", "mkqa", *BUILTIN))])
def test_columns_tell_the_dataset(tmp_path, name, suffix):
    write = write_jsonl if suffix == "jsonl" else write_parquet
    path = write(tmp_path / f"rows.{suffix}", [CASES[name][0]] * 3)
    assert find(path, tmp_path).hub_name == TOLD_BY_COLUMNS[name]


@pytest.mark.parametrize("name", ["Cohere/miracl-zh-queries-22-12", "mkqa-Japanese"])
def test_columns_of_two_datasets_ask_for_the_format(tmp_path, name):
    path = write_jsonl(tmp_path / "rows.jsonl", [CASES[name][0]] * 3)
    with pytest.raises(UserError, match=r"fit several datasets .*say which with --data_format") as caught:
        find(path, tmp_path)
    assert name in str(caught.value)


def test_columns_that_fit_nothing_are_listed_with_the_supported_names(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"source": "a", "target": "b"}] * 3)
    with pytest.raises(UserError) as caught:
        find(path, tmp_path)
    assert "has the columns source, target" in str(caught.value)
    assert all(name in str(caught.value) for name in CASES)


def test_local_jsonfile_says_where_its_files_belong(tmp_path):
    with pytest.raises(UserError, match=r"reads /.*DeepSpeed-Chat/data/train\.json and eval\.json"):
        find("local/jsonfile", tmp_path)


def test_published_json_layout_is_read(tmp_path):
    (tmp_path / "train.json").write_text(json.dumps(numbered_rows(3), indent=1))
    (tmp_path / "eval.json").write_text(json.dumps(numbered_rows(2)))
    splits = find(tmp_path, tmp_path).load(REWARD.texts)
    assert (len(splits.train), len(splits.evaluation)) == (3, 2)


LAYOUTS = {
    "flat": ("train.parquet", "test.parquet"),
    "shards": ("data/train-00000-of-00001-abc.parquet", "data/test-00000-of-00001-def.parquet"),
    "hub's conversion": ("default/train/0000.parquet", "default/test/0000.parquet"),
    "a configuration among others": ("comparisons/train.parquet", "comparisons/validation.parquet"),
    "other names": ("pairs_training.jsonl", "pairs-dev.jsonl"),
    "json": ("train.json", "eval.json"),
    "compressed": ("train.jsonl.gz", "test.jsonl.zst"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_folder_layouts(tmp_path, layout):
    root = tmp_path / "root"
    for name, count in zip(LAYOUTS[layout], (5, 2), strict=True):
        write = write_parquet if name.endswith("parquet") else write_jsonl
        write(root / name, numbered_rows(count))
    (root / "README.md").write_text("about")
    (root / "dataset_infos.json").write_text("{}")
    if layout == "a configuration among others":
        write_parquet(root / "axis" / "test.parquet", [{"other": 1}])
    splits = find(root, tmp_path).load(REWARD.texts)
    assert (len(splits.train), len(splits.evaluation)) == (5, 2)


def test_several_shards_are_read_in_order(tmp_path):
    for shard in range(3):
        write_parquet(tmp_path / "root" / f"train-{shard:05}-of-00003.parquet", numbered_rows(2, start=2 * shard))
    write_parquet(tmp_path / "root" / "test.parquet", numbered_rows(1))
    train = find(tmp_path / "root", tmp_path).load().train
    assert list(train["chosen"]) == [f"good answer {number}" for number in range(6)]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"a/x.jsonl": 1, "b/x.jsonl": 1}, r"several sets of data \(a, b\)"),
        ({"train.jsonl": 1, "train.parquet": 1}, "several formats"),
        ({"test.jsonl": 1}, "has no train file"),
        ({"rows.csv": 0}, r"no parquet, json or jsonl file \(found: rows\.csv\)"),
        ({}, r"\(found: nothing\)"),
    ],
)
def test_folder_that_cannot_be_read_says_what_it_holds(tmp_path, files, words):
    root = tmp_path / "root"
    root.mkdir()
    for name, count in files.items():
        (write_parquet if name.endswith("parquet") else write_jsonl)(root / name, numbered_rows(count))
    with pytest.raises(UserError, match=words):
        find(root, tmp_path)


def test_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "rows.csv").write_text("prompt\n")
    with pytest.raises(UserError, match="pass parquet, json or jsonl"):
        find(tmp_path / "rows.csv", tmp_path)


def test_broken_parquet_is_named(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 but no more")
    with pytest.raises(UserError, match=r"train\.parquet is not a whole parquet file"):
        find(tmp_path, tmp_path)
    with pytest.raises(UserError, match=r"train\.parquet is not a whole parquet file"):
        find(tmp_path, tmp_path, data_format="local/jsonfile").load()


def test_broken_saved_folder_is_named(tmp_path):
    datasets.Dataset.from_list(numbered_rows(3)).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "data-00000-of-00001.arrow").unlink()
    with pytest.raises(UserError, match="saved looks like a folder of Dataset"):
        find(tmp_path / "saved", tmp_path)


def test_rows_of_different_kinds_name_the_column(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "extra": 1}, {"prompt": "q", "extra": "two"}])
    with pytest.raises(UserError, match=r"column 'extra' of .*does not hold the same kind of value"):
        find(path, tmp_path).load()

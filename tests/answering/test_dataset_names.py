"""Short and hub names of datasets mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.dataset_names import CODE_DATASETS, HUB_NAMES, folder_name, short_name, unknown_dataset
from dschat.data.apps import Apps
from dschat.data.raw_datasets import find_raw_dataset


def test_every_short_name_leads_to_a_dataset(tmp_path: Path) -> None:
    for short, hub in HUB_NAMES.items():
        dataset = find_raw_dataset(hub, data_format=None, seed=1, cache_dir=tmp_path)
        assert isinstance(dataset, Apps) == (short in CODE_DATASETS)
        assert short_name(hub) == short_name(short) == short


@pytest.mark.parametrize(
    ("dataset", "folder"), [("openai/webgpt_comparisons", "webgpt"), ("some/where", "some_where"), ("/", "")]
)
def test_results_go_to_a_folder_of_one_word(dataset: str, folder: str) -> None:
    assert folder_name(dataset) == folder


def test_a_local_file_is_called_by_its_last_part(tmp_path: Path) -> None:
    (tmp_path / "mine.jsonl").touch()
    assert folder_name(str(tmp_path / "mine.jsonl")) == "mine"


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    assert "did you mean summarize? known are" in str(unknown_dataset("sumarize"))
    assert "did you mean" not in str(unknown_dataset("xxxxxx"))

"""Chinese and Japanese datasets: found by their hub names, in one form."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.data import multilingual
from dschat.data.base import RawDataset
from dschat.data.raw_datasets import find_raw_dataset

CLASSES = [
    found
    for found in vars(multilingual).values()
    if isinstance(found, type) and issubclass(found, RawDataset) and found is not RawDataset
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.name)
def test_every_class_is_found_by_its_name_and_reads_its_own_columns(kind: type[RawDataset], tmp_path: Path) -> None:
    dataset = find_raw_dataset(kind.hub_name, data_format=None, seed=1, cache_dir=tmp_path)
    assert type(dataset) is kind
    row: dict[str, object] = {}
    for column, text in ((kind.prompt_columns[0], "问题"), (kind.chosen_columns[0], "回答")):
        value: object = text
        for part in reversed(column.split(".")):
            value = {part.removesuffix("[]"): [value] if part.endswith("[]") else value}
        assert isinstance(value, dict)
        row |= value
    assert dataset.prompt(row) == " Human: 问题 Assistant:"
    assert dataset.chosen(row) == " 回答"


def test_no_two_share_a_name() -> None:
    assert len(CLASSES) == 8
    for names in ([kind.name for kind in CLASSES], [kind.hub_name for kind in CLASSES]):
        assert len({*names}) == len(names)

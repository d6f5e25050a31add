"""A file of rows that grows: what a kill tears is dropped, anything else that is odd is refused and kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.appended_file import AppendedFile, write_whole
from dschat.errors import UserError


def test_rows_are_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "rows.jsonl"
    with AppendedFile(path, flag="output") as file:
        file.append({"text": "ü \ud83d"})
        file.append({"text": "b"})
        assert file.drop_last() == {"text": "b"}
        file.append({"text": "c"})
    with AppendedFile(path, flag="output") as file:
        assert [row["text"] for row in file.rows] == ["ü \ud83d", "c"]


@pytest.mark.parametrize(("end", "rows"), [('{"a": 2', 1), ('{"a": 2}', 2)])
def test_a_torn_line_is_dropped_and_a_whole_one_is_ended(end: str, rows: int, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n' + end)
    with AppendedFile(path, flag="output") as file:
        assert len(file.rows) == rows
        file.append({"a": 3})
    assert path.read_text().splitlines()[-1] == '{"a": 3}'
    assert len(path.read_text().splitlines()) == rows + 1


@pytest.mark.parametrize("content", ["thesis\n", "[1]\n", "no JSON at the end"])
def test_a_file_of_another_kind_is_refused_and_left(content: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=r"--output .*:1 is no JSON object"):
        AppendedFile(path, flag="output")
    assert path.read_text() == content


def test_one_process_at_a_time_writes(tmp_path: Path) -> None:
    with (
        AppendedFile(tmp_path / "rows.jsonl", flag="output"),
        pytest.raises(UserError, match="is being written by another process"),
    ):
        AppendedFile(tmp_path / "rows.jsonl", flag="output")
    AppendedFile(tmp_path / "rows.jsonl", flag="output").close()


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    write_whole(tmp_path / "summary.json", "old")
    write_whole(tmp_path / "summary.json", "new")
    assert (tmp_path / "summary.json").read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    with pytest.raises(UserError, match="cannot be written"):
        write_whole(tmp_path / "summary.json" / "below", "new")

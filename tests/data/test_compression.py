"""Compressed files are read as what they hold, or refused in a sentence that says how far they are whole."""

from __future__ import annotations

import gzip
import io
import re
import tracemalloc

import pyarrow
import pytest

from dschat.data import compression
from dschat.data.compression import numbered_lines, plain_stem, plain_suffix, read_unpacked
from dschat.data.json_rows import BadRows, read_json_rows
from dschat.errors import UserError
from tests.data.helpers import numbered_rows, packed, write_jsonl

MANY = 20_000
LINES = [b'{"prompt": "question %d"}\n' % number for number in range(MANY)]


@pytest.mark.parametrize(
    ("name", "stem", "suffix"),
    [
        ("rows.jsonl.gz", "rows", ".jsonl"),
        ("ROWS.JSONL.GZ", "ROWS", ".jsonl"),
        ("a.b.json.zst", "a.b", ".json"),
        ("rows.json", "rows", ".json"),
        ("rows.gz", "rows", ""),
        ("rows", "rows", ""),
    ],
)
def test_names_are_told_without_the_compression(tmp_path, name, stem, suffix):
    assert plain_stem(tmp_path / name) == stem
    assert plain_suffix(tmp_path / name) == suffix


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("content", [b"one\ntwo\r\n\n\xe2\x80\xa8 three", b"", b"\n", b"".join(LINES)])
def test_lines_are_those_of_the_plain_file(tmp_path, suffix, content):
    path = tmp_path / f"rows.txt{suffix}"
    path.write_bytes(packed(content, suffix))
    assert list(numbered_lines(path)) == list(enumerate(io.BytesIO(content), start=1))
    assert read_unpacked(path) == content


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_files_put_end_to_end_are_read_to_the_last(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(packed(LINES[0], suffix) + packed(b"".join(LINES[1:3]), suffix))
    assert [line for _, line in numbered_lines(path)] == LINES[:3]


@pytest.mark.parametrize("name", ["rows.jsonl.gz", "rows.jsonl.zst", "rows.json.gz", "rows.json.zst"])
def test_rows_of_compressed_json_are_those_of_the_plain_file(tmp_path, name):
    rows = numbered_rows(5)
    assert read_json_rows(write_jsonl(tmp_path / name, rows), text_columns=("prompt",)) == rows


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_list_in_a_compressed_file_is_read_and_its_faults_have_lines(tmp_path, suffix):
    path = tmp_path / f"rows.json{suffix}"
    path.write_bytes(packed(b'\n[{"prompt": "a"},\n {"prompt": "b"}]', suffix))
    assert read_json_rows(path) == [{"prompt": "a"}, {"prompt": "b"}]
    path.write_bytes(packed(b'\n[{"prompt": "a"},\n 7]', suffix))
    with pytest.raises(UserError, match=rf"rows\.json\{suffix}:3: a number instead of an object"):
        read_json_rows(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
@pytest.mark.parametrize("share", [0.999, 0.5])
def test_a_file_that_is_cut_off_is_named_with_the_last_whole_line(tmp_path, suffix, share):
    path = tmp_path / f"rows.jsonl{suffix}"
    whole = packed(b"".join(LINES), suffix)
    path.write_bytes(whole[: int(share * len(whole))])
    # a faulty row may be left out; how many rows a damage takes nobody knows
    with pytest.raises(UserError) as caught:
        read_json_rows(path, bad=BadRows(MANY))
    message = str(caught.value)
    found = re.match(rf"{path} is damaged or cut off after line ([\d,]+) \(.+\); copy or write it again$", message)
    assert found, message
    last = int(found[1].replace(",", ""))
    assert 0.3 * share * MANY < last < MANY
    lines = numbered_lines(path)
    assert [next(lines)[1] for _ in range(last)] == LINES[:last]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, suffix):
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(LINES[0])
    with pytest.raises(UserError, match=rf"rows\.jsonl\{suffix} is damaged or cut off at its beginning"):
        read_json_rows(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match=rf"rows\.jsonl\{suffix} is empty, which no compressed file is"):
        read_json_rows(path)


def test_a_flipped_bit_in_gzip_is_noticed(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    content = bytearray(packed(b"".join(LINES), ".gz"))
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"rows\.jsonl\.gz(:[\d]+: not| is damaged)"):
        read_json_rows(path)


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_made_to_fill_the_memory_is_refused_before_it_does(tmp_path, suffix, monkeypatch):
    monkeypatch.setattr(compression, "ALWAYS_UNPACKED_BYTES", 4 * 2**20)
    path = tmp_path / f"rows.jsonl{suffix}"
    with pyarrow.CompressedOutputStream(path, "gzip" if suffix == ".gz" else "zstd") as stream:
        for _ in range(64):
            stream.write(b" " * 2**20)
    assert path.stat().st_size < 2**17
    tracemalloc.start()
    with pytest.raises(UserError, match=r"unpacks to more than 200 times its size, .*pass the plain file"):
        read_json_rows(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 32 * 2**20


def test_rows_are_unpacked_as_they_are_asked_for(tmp_path):
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b"".join(LINES))[:-20])
    lines = numbered_lines(path)
    assert [next(lines) for _ in range(3)] == [(number + 1, LINES[number]) for number in range(3)]

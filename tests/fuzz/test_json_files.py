"""Whatever is in a json or jsonl file: rows, or one sentence; and every line is a row, a fault, or blank."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from dschat.data.json_rows import BadRows, read_json_rows
from dschat.errors import UserError
from tests.data.helpers import packed
from tests.fuzz.profiles import fuzzed

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
ANY_TEXTS = st.text(max_size=12)  # lone surrogates among them
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXTS, inner, max_size=3),
    max_leaves=6,
)
GOOD_ROWS = st.fixed_dictionaries({"prompt": TEXTS}, optional={"chosen": TEXTS, "score": st.integers()})
GOOD_LINES = st.builds(lambda row, ascii: json.dumps(row, ensure_ascii=ascii).encode(), GOOD_ROWS, st.booleans())
OTHER_LINES = (
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\n", b""))
    | VALUES.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [b"", b"  ", b"\r", b"{", b"[" * 5_000, b"9" * 5_000, b'{"a": ' * 3_000, b"NaN", b"\xef\xbb\xbf{}"]
    )
)
ENDS = st.sampled_from([b"\n", b"\r\n"])
PACKED = st.sampled_from([".gz", ".zst"])


def one_sentence(error: UserError, path: Path) -> None:
    assert "\n" not in str(error)
    assert str(path) in str(error)
    str(error).encode()


@fuzzed(share=3)
@given(st.lists(GOOD_LINES | OTHER_LINES, max_size=8), ENDS, st.booleans())
def test_every_line_of_jsonl_is_a_row_a_fault_or_blank(
    tmp_path_factory: Any, lines: list[bytes], end: bytes, mark: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes((b"\xef\xbb\xbf" if mark else b"") + end.join(lines))
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    filled = [line for line in content.split(b"\n") if line.strip()]
    bad = BadRows(len(filled))
    rows = read_json_rows(path, text_columns=("prompt",), bad=bad)
    assert len(rows) + bad.count == len(filled)
    assert all(isinstance(row.get("prompt", ""), str) for row in rows)
    json.dumps(rows, ensure_ascii=False).encode()
    try:
        assert read_json_rows(path, text_columns=("prompt",)) == rows or bad.count == 0
        assert bad.count == 0
    except UserError as error:
        assert bad.count
        one_sentence(error, path)


@fuzzed()
@given(st.lists(GOOD_LINES, min_size=1, max_size=8), ENDS)
def test_no_good_line_is_lost_or_changed(tmp_path_factory: Any, lines: list[bytes], end: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(end.join(lines) + end)
    assert read_json_rows(path, text_columns=("prompt",)) == [json.loads(line) for line in lines]


@fuzzed(share=2)
@given(st.lists(GOOD_ROWS | VALUES, max_size=6), st.none() | st.integers(0, 200), st.binary(max_size=3))
def test_a_list_is_read_whole_or_not_at_all(
    tmp_path_factory: Any, items: list[Any], cut: int | None, tail: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    whole = json.dumps(items).encode()
    path.write_bytes(whole[:cut] + tail)
    try:
        rows = read_json_rows(path)
    except UserError as error:
        one_sentence(error, path)
        return
    if path.read_bytes().startswith(b"[") and rows:
        expected = json.loads(path.read_bytes())
        assert json.dumps(rows) == json.dumps(expected)


@fuzzed(share=2)
@given(st.binary(max_size=200), st.sampled_from(["a.json", "a.jsonl", "a.json.gz", "a.jsonl.zst"]))
def test_arbitrary_bytes_never_surprise(tmp_path_factory: Any, content: bytes, name: str) -> None:
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(content)
    try:
        read_json_rows(path, text_columns=("prompt",))
    except UserError as error:
        one_sentence(error, path)


@fuzzed(share=2)
@given(st.lists(GOOD_LINES | OTHER_LINES, max_size=8), ENDS, st.sampled_from([".json", ".jsonl"]), PACKED)
def test_a_compressed_file_means_what_the_plain_one_means(
    tmp_path_factory: Any, lines: list[bytes], end: bytes, suffix: str, packing: str
) -> None:
    plain = tmp_path_factory.getbasetemp() / f"fuzzed{suffix}"
    plain.write_bytes(end.join(lines))
    compressed = plain.with_name(plain.name + packing)
    compressed.write_bytes(packed(plain.read_bytes(), packing))

    def found(path: Path) -> str:
        try:
            return json.dumps(read_json_rows(path, text_columns=("prompt",)))
        except UserError as error:
            one_sentence(error, path)
            return str(error).replace(str(path), "…")

    assert found(plain) == found(compressed)


@fuzzed(share=2)
@given(st.lists(GOOD_LINES, min_size=1, max_size=8), PACKED, st.integers(0, 400), st.none() | st.integers(1, 255))
def test_a_compressed_file_that_is_cut_or_changed_is_read_whole_or_named(
    tmp_path_factory: Any, lines: list[bytes], packing: str, at: int, flip: int | None
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzzed.jsonl{packing}"
    whole = bytearray(packed(b"\n".join(lines), packing))
    at %= len(whole)
    if flip is None:
        whole = whole[:at]
    else:
        whole[at] ^= flip
    path.write_bytes(whole)
    try:
        rows = read_json_rows(path)
    except UserError as error:
        one_sentence(error, path)
        return
    # zstd carries a checksum only where its writer wanted one
    assert flip is not None
    assert packing == ".zst" or rows == [json.loads(line) for line in lines]

from __future__ import annotations

import json

import pytest

from dschat.data.json_rows import BadRows, iter_json_rows, read_json_rows
from dschat.errors import UserError

GOOD = '{"prompt": "p", "chosen": "c"}\n'


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json"])
def test_lines_with_mark_blanks_and_carriage_returns_are_read(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(
        b"\xef\xbb\xbf" + b'{"prompt": "one"}\r\n\r\n \n{"prompt": "two\xe2\x80\xa8lines \\u0000 \xf0\x9f\x99\x82"}'
    )
    rows = read_json_rows(path, text_columns=("prompt",))
    assert rows == [{"prompt": "one"}, {"prompt": "two\u2028lines \0 \U0001f642"}]


@pytest.mark.parametrize("indent", [None, 2])
def test_a_list_of_objects_is_read_from_json(tmp_path, indent):
    rows = [{"prompt": "a", "tags": [1, 2]}, {"prompt": "b\n]"}, {"prompt": "c"}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, indent=indent))
    assert read_json_rows(path, text_columns=("prompt",)) == rows


def test_an_empty_list_has_no_rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text("[ ]\n")
    assert read_json_rows(path) == []


FAULTS = {
    "malformed line": (GOOD + "{'prompt': 1}\n", 2, "not JSON"),
    "cut line": (GOOD + GOOD + '{"prompt": "p', 3, "not JSON"),
    "two objects on a line": (GOOD + "\n" + GOOD.strip() + GOOD, 3, "more than one JSON value"),
    "list": (GOOD + '[{"prompt": "p"}]\n', 2, "a list instead of an object"),
    "text": ('"prompt"\n', 1, "text instead of an object"),
    "null line": (GOOD + "null\n", 2, "null instead of an object"),
    "null prompt": (GOOD + '{"prompt": null, "chosen": "c"}\n', 2, "field 'prompt' is null"),
    "NaN chosen": (GOOD + '{"prompt": "p", "chosen": NaN}\n', 2, "field 'chosen' is NaN"),
    "number": (GOOD + '{"prompt": 3, "chosen": "c"}\n', 2, "field 'prompt' is a number"),
    "missing": (GOOD + '{"prompt": "p"}\n', 2, "field 'chosen' is missing"),
    "lone surrogate": (GOOD + '{"prompt": "p", "chosen": "\\ud83d"}\n', 2, "field 'chosen' holds half of a surrogate"),
    "surrogate in a name": ('{"prompt\\udc00": "p"}\n', 1, "field 'prompt\\udc00' holds half of a surrogate"),
    "endless number": (GOOD + '{"prompt": ' + "9" * 5_000 + "}\n", 2, "not usable JSON"),
    "endless brackets": (GOOD + "[" * 100_000 + "\n", 2, "not usable JSON"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_line_is_named_with_file_and_number(tmp_path, fault):
    content, line, what = FAULTS[fault]
    path = tmp_path / "rows.jsonl"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_json_rows(path, text_columns=("prompt", "chosen"))
    message = str(caught.value)
    assert message.startswith(f"{path}:{line}: {what}")
    assert message.endswith('; expected {"prompt": "...", "chosen": "..."}')
    assert "\n" not in message


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(GOOD.encode() + b'{"prompt": "caf\xe9", "chosen": "c"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:2: not UTF-8 \(byte 0xe9\)"):
        read_json_rows(path)


@pytest.mark.parametrize(
    ("content", "line", "what"),
    [
        ('[\n{"prompt": "a"},\n{"prompt": }\n]', 3, "not JSON"),
        ('[\n{"prompt": "a"}\n{"prompt": "b"}\n]', 3, "the list does not go on"),
        ('[\n{"prompt": "a"},\n\n7]', 4, "a number instead of an object"),
        ('[\n{"prompt": "a"},\n{"prompt": null}]', 3, "field 'prompt' is null"),
        ('[{"prompt": "a"}]\n{"prompt": "b"}', 1, "text after the end"),
        ('[{"prompt": "a"}]\n\x0b', 1, "text after the end"),
        ('[{"prompt": "a"},\n]', 2, "a comma before the end of the list"),
        ('[\n{"prompt": "a"},\n', 3, "not JSON"),
    ],
)
def test_faulty_item_of_a_list_is_named_with_its_line(tmp_path, content, line, what):
    path = tmp_path / "rows.json"
    path.write_text(content)
    with pytest.raises(UserError) as caught:
        read_json_rows(path, text_columns=("prompt",))
    assert str(caught.value).startswith(f"{path}:{line}: {what}")


def test_a_field_that_nobody_needs_may_be_null_or_nan(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "p", "rejected": null, "score": NaN}\n')
    (row,) = read_json_rows(path, text_columns=("prompt",))
    assert row["rejected"] is None
    assert row["score"] != row["score"]


def test_a_needed_column_that_no_row_has_is_left_to_the_caller(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD)
    assert read_json_rows(path, text_columns=("prompt", "rejected")) == [{"prompt": "p", "chosen": "c"}]


def test_reading_stops_where_the_caller_stops(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(GOOD + "broken\n")
    assert next(iter_json_rows(path)) == (1, {"prompt": "p", "chosen": "c"})


@pytest.mark.parametrize("fault", FAULTS)
def test_faulty_lines_are_left_out_up_to_the_limit(tmp_path, fault, caplog):
    content, line, what = FAULTS[fault]
    content = content.rstrip("\n") + "\n"
    path = tmp_path / "rows.jsonl"
    path.write_text(content + GOOD)
    whole = [row for row in content.splitlines() if row == GOOD.strip()]
    bad = BadRows(1)
    assert read_json_rows(path, text_columns=("prompt", "chosen"), bad=bad) == [json.loads(GOOD)] * (len(whole) + 1)
    assert bad.count == 1
    assert f"left out {path}:{line}: {what}" in caplog.text
    path.write_text(content + content + GOOD)
    with pytest.raises(UserError, match=r"expected .* \(--skip_bad_rows 1 is used up\)$"):
        read_json_rows(path, text_columns=("prompt", "chosen"), bad=BadRows(1))


def test_faulty_items_of_a_list_are_left_out_but_a_broken_list_is_not(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"prompt": "a"}, 7, {"prompt": null}]')
    bad = BadRows(2)
    assert read_json_rows(path, text_columns=("prompt",), bad=bad) == [{"prompt": "a"}]
    assert bad.count == 2
    path.write_text('[{"prompt": "a"} {"prompt": "b"}]')
    with pytest.raises(UserError, match="the list does not go on"):
        read_json_rows(path, text_columns=("prompt",), bad=BadRows(9))

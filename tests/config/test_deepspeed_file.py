"""The JSON file of --deepspeed_config, before anybody asks what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.config.deepspeed_file import read_deepspeed_file
from dschat.config.steps import parse_reward_config
from dschat.errors import UserError


def test_entries_are_read(tmp_path: Path) -> None:
    file = tmp_path / "over.json"
    file.write_text('{"gradient_clipping": 5e-1, "zero_optimization": {"reduce_bucket_size": 7}}')
    assert read_deepspeed_file(str(file)) == {"gradient_clipping": 0.5, "zero_optimization": {"reduce_bucket_size": 7}}


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"{", "is not readable as JSON: Expecting property name"),
        (b"[1]", "must hold a JSON object"),
        (b"\xff", "is not readable as JSON: 'utf-8' codec"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "is not readable as JSON: the entry c is there twice"),
        (b'{"a": NaN}', "NaN is no finite number"),
        (b'{"a": 1e999}', "1e999 is no finite number"),
        (b'{"a": -Infinity}', "-Infinity is no finite number"),
        (b'{"a": ' * 100_000, "is not readable as JSON: maximum recursion depth"),
    ],
)
def test_a_file_that_is_no_object_is_refused_with_the_other_flags(
    content: bytes, sentence: str, tmp_path: Path
) -> None:
    file = tmp_path / "over.json"
    file.write_bytes(content)
    words = ["--model_name_or_path", "m", "--output_dir", "o", "--deepspeed_config", str(file)]
    with pytest.raises(UserError) as caught:
        parse_reward_config(words)
    assert str(caught.value).startswith(f"--deepspeed_config {file} ")
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)

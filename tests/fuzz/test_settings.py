"""Whatever is on the command line or in a YAML file: settings, or one sentence."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import yaml
from hypothesis import given
from hypothesis import strategies as st

from dschat.config.flag import flags_of
from dschat.config.steps import parse_reward_config, parse_sft_config
from dschat.errors import UserError
from tests.config.commands import section_classes
from tests.fuzz.profiles import fuzzed

FLAGS = sorted({name for section in section_classes() for name in flags_of(section)})
VALUES = (
    st.text(max_size=8) | st.integers() | st.floats() | st.booleans() | st.none() | st.dates()
    | st.lists(st.text(max_size=4) | st.integers(), max_size=3)
    | st.dictionaries(st.text(max_size=3), st.none(), max_size=2)
    | st.sampled_from(["-1", "--", "-", "nan", "inf", "1e400", "true", "None", "\0", "\udc00"])
)  # fmt: skip


def parsed(words: list[str]) -> None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            parse_sft_config(words)
    except UserError as error:
        assert "\n" not in str(error)
    except SystemExit as end:
        assert end.code == 0  # --help
        assert "--help" in words or "-h" in words


@fuzzed(share=2)
@given(st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_a_file_of_anything(tmp_path_factory: Any, content: bytes) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(content)
    parsed(["--model_name_or_path", "m", "--output_dir", "o", "--config", str(path)])


@fuzzed(share=2)
@given(st.dictionaries(st.sampled_from(FLAGS) | st.text(max_size=6), VALUES, max_size=4))
def test_a_file_of_flags_with_any_values(tmp_path_factory: Any, settings: dict[str, Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(settings))
    parsed(["--model_name_or_path", "m", "--output_dir", "o", "--config", str(path)])


@fuzzed(share=2)
@given(st.lists(st.sampled_from([f"--{flag}" for flag in FLAGS]) | VALUES.map(str), max_size=6))
def test_words_in_any_order(words: list[str]) -> None:
    parsed(["--model_name_or_path", "m", "--output_dir", "o", *words])


@fuzzed()
@given(st.integers(1, 10**6), st.floats(1e-9, 1.0), st.integers(0, 3), st.sampled_from(["linear", "cosine"]))
def test_a_file_means_what_the_words_mean(
    tmp_path_factory: Any, steps: int, rate: float, stage: int, schedule: str
) -> None:
    settings = {"max_steps": steps, "learning_rate": rate, "zero_stage": stage, "lr_scheduler_type": schedule}
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(yaml.safe_dump(settings))
    common = ["--model_name_or_path", "m", "--output_dir", "o"]
    words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
    assert parse_reward_config([*common, "--config", str(path)]) == parse_reward_config([*common, *words])

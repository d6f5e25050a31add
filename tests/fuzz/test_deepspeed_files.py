"""Whatever is in a --deepspeed_config: settings that DeepSpeed reads, with the flags' own numbers, or one sentence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dschat.config.runtime import RuntimeConfig
from dschat.errors import UserError
from dschat.runtime.deepspeed_config import training_settings
from dschat.runtime.deepspeed_entries import merged
from dschat.runtime.deepspeed_overrides import check_overrides, overrides_of
from tests.fuzz.profiles import fuzzed
from tests.runtime.test_deepspeed_overrides import ALLOWED, SAME, nested, trained

pytestmark = pytest.mark.usefixtures("process_group")

SECTIONS = ["zero_optimization", "optimizer", "optimizer.params", "fp16", "bf16", "checkpoint", "data_types", "aio",
            "flops_profiler", "scheduler", "csv_monitor", "comms_logger", "timers", "zero_optimization.offload_param",
            "zero_optimization.leaf_module", "checkpoint.parallel_write", "amp", "log_level"]  # fmt: skip
NAMES = st.sampled_from([*ALLOWED, *SAME, *SECTIONS]) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 10**10) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4) | st.just("auto") | st.sampled_from([*ALLOWED.values(), *SAME.values()]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=4,
)  # fmt: skip


@fuzzed(share=2)
@given(st.lists(st.tuples(NAMES, VALUES), max_size=3), st.integers(0, 3), st.booleans())
def test_a_file_of_any_entries(
    tmp_path_factory: Any, entries: list[tuple[str, Any]], stage: int, offload: bool
) -> None:
    from deepspeed.runtime.config import DeepSpeedConfig

    file = tmp_path_factory.getbasetemp() / "fuzzed.json"
    said: dict[str, Any] = {}
    for name, value in entries:
        said = merged(said, nested(name, value))
    file.write_text(json.dumps(said))
    runtime = RuntimeConfig(dtype="fp32", deepspeed_config=str(file))
    model = trained(stage, offload=offload)
    try:
        check_overrides(runtime, lambda: {"model": model})
    except UserError as error:
        assert "\n" not in str(error)
        assert str(file) in str(error)
        str(error).encode()
        return
    flags = training_settings(model.placement, model.optimization)
    config = DeepSpeedConfig(merged(flags, overrides_of(runtime, model)))
    assert config.train_batch_size == flags["train_batch_size"]
    assert config.gradient_accumulation_steps == flags["gradient_accumulation_steps"]
    assert config.zero_optimization_stage == stage
    assert not config.float16_config.enabled
    assert config.optimizer_params["lr"] == model.optimization.learning_rate

"""Which settings decide what a run computes, so that a resumed run can be held to them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FREE_SETTINGS = frozenset({
    *("local_rank", "dry_run", "trust_remote_code", "dist_timeout", "deepspeed_config"),
    *("output_dir", "overwrite_output_dir", "enable_tensorboard", "tensorboard_path", "data_output_path"),
    *("save_steps", "save_total_limit", "save_only_model"),
    *("resume", "resume_override", "on_full_disk", "on_nan", "max_skipped_steps"),
    *("eval_interval", "eval_iters", "eval_steps", "eval_prompts", "per_device_eval_batch_size"),
    *("print_answers", "print_answers_interval"),
    # the rows that come of these are compared by their content
    *("data_path", "data_format", "sft_only_data_path"),
})  # fmt: skip
"""Flags that may differ between a run and its continuation; every other flag must not."""

ABSENT = "absent"


def decisive_settings(config: Any) -> dict[str, Any]:
    """Every flag of a step's settings that decides the numbers, JSON-serialisable, and the variants that were chosen.

    Args:
        config: the settings of a step, a dataclass of sections.
    """
    settings: dict[str, Any] = {}
    for part in dataclasses.fields(config):
        section = getattr(config, part.name)
        settings[f"{part.name} settings"] = type(section).__name__
        for field in dataclasses.fields(section):
            if field.name not in FREE_SETTINGS:
                settings[f"--{field.name}"] = getattr(section, field.name)
    overrides = config.runtime.deepspeed_config
    settings["content of --deepspeed_config"] = json.loads(Path(overrides).read_text()) if overrides else None
    return settings


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What two runs' decisive settings disagree on, each as `--flag was 1, is 2`."""
    names = [*current, *(name for name in saved if name not in current)]
    pairs = [(name, saved.get(name, ABSENT), current.get(name, ABSENT)) for name in names]
    # as JSON, in which the saved ones have been: tuples are lists there
    return [f"{name} was {was}, is {now}" for name, was, now in pairs if _json(was) != _json(now)]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

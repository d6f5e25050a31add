"""Which settings decide what a run computes, so that a resumed run can be held to them."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from dschat.config.deepspeed_file import read_deepspeed_file
from dschat.config.flag import flags_of

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
        for name, flag in flags_of(section).items():
            if not flag.may_change:
                settings[f"--{name}"] = getattr(section, name)
    file = config.runtime.deepspeed_config
    settings["content of --deepspeed_config"] = read_deepspeed_file(file) if file else None
    return settings


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> list[str]:
    """What two runs' decisive settings disagree on, each as `--flag was 1, is 2`."""
    names = [*current, *(name for name in saved if name not in current)]
    pairs = [(name, saved.get(name, ABSENT), current.get(name, ABSENT)) for name in names]
    # as JSON, in which the saved ones have been: tuples are lists there
    return [f"{name} was {was}, is {now}" for name, was, now in pairs if _json(was) != _json(now)]


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)

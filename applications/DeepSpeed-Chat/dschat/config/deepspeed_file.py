"""The JSON file of `--deepspeed_config`, read without DeepSpeed; what it may say is checked in `dschat.runtime`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from dschat.errors import UserError


def read_deepspeed_file(path: str) -> dict[str, Any]:
    """The entries of the file.

    Raises:
        UserError: there is no such file, or it is not one JSON object with finite numbers and without repeated entries.
    """
    if not Path(path).is_file():
        raise UserError(f"--deepspeed_config {path}: there is no such file")

    def single(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"the entry {twice} is there twice")
        return entries

    def finite(number: str) -> float:
        if not math.isfinite(float(number)):
            raise ValueError(f"{number} is no finite number")
        return float(number)

    try:
        text = Path(path).read_text(encoding="utf-8")
        entries = json.loads(text, object_pairs_hook=single, parse_constant=finite, parse_float=finite)
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"--deepspeed_config {path} is not readable as JSON: {error}") from error
    if not isinstance(entries, dict):
        raise UserError(f"--deepspeed_config {path} must hold a JSON object")
    return entries

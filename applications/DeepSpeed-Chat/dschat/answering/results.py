"""The result files that inference writes and the evaluation tools read: one JSON object a line.

Keys: `prompt`, `response`, `reward` (a number, or null where there is none); with `--ref-scores`, where the response is
the dataset's preferred answer, also `rejected_response` and `rejected_reward`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dschat.data.json_rows import read_json_rows
from dschat.errors import UserError


@dataclass(frozen=True)
class Result:
    """One answer."""

    prompt: str
    response: str
    reward: float | None
    """The reward model's score, None where there is none."""


def read_result_rows(path: Path, *, flag: str) -> list[dict[str, Any]]:
    """All rows of a result file, checked.

    Args:
        path: a `.jsonl` file.
        flag: the flag that named it, for messages.
    Raises:
        UserError: missing, empty, not such a file, or text that is not Unicode; with the line.
    """
    if not path.is_file():
        raise UserError(f"--{flag} {path}: there is no such file; run inference/inference_with_rewards.py first")
    rows = read_json_rows(path, text_columns=("prompt", "response"))
    if not rows:
        raise UserError(f"--{flag} {path} holds no row; run inference/inference_with_rewards.py again")
    for number, row in enumerate(rows, start=1):
        for column in ("prompt", "response"):
            if column not in row:
                raise UserError(
                    f"--{flag} {path}: row {number} has no '{column}'; pass a file that inference_with_rewards.py wrote"
                )
        reward = row.get("reward")
        if reward is not None and (not isinstance(reward, int | float) or isinstance(reward, bool)):
            raise UserError(f"--{flag} {path}: the reward of row {number} is no number; write the file again")
    return rows


def read_results(path: Path, *, flag: str) -> list[Result]:
    """The answers of a result file; a reward that is not finite counts as none. See `read_result_rows`."""
    return [
        Result(row["prompt"], row["response"], finite(row.get("reward"))) for row in read_result_rows(path, flag=flag)
    ]


def finite(value: float | None) -> float | None:
    """The number, None where it is missing, NaN or infinite."""
    return float(value) if value is not None and math.isfinite(value) else None

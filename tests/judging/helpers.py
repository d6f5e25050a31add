"""Result files, and the evaluation programs started as a user starts them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "evaluation" / "gpt4-eval.py"
TIMEOUT_SECONDS = 120


def write_results(
    path: Path, responses: Sequence[str], *, rewards: Sequence[float | None] | None = None, prompt: str = "post {row}"
) -> Path:
    """A result file with one row per response; `{row}` in the prompt is the row's number."""
    rows = [
        {"prompt": prompt.format(row=row), "response": response, "reward": 0.0 if rewards is None else rewards[row]}
        for row, response in enumerate(responses)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The objects of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]


def environment(**more: str) -> dict[str, str]:
    """This process's environment without an API key."""
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    return {**kept, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200", **more}


def run_program(program: Path, *arguments: object, **more: str) -> subprocess.CompletedProcess[str]:
    """Start a program from the repository's root and wait for it; `more` is put into its environment."""
    words = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.run(
        words, cwd=ROOT, env=environment(**more), capture_output=True, text=True, timeout=TIMEOUT_SECONDS,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def judge_words(a: Path, b: Path, output: Path, url: str, *more: object, dataset: str = "summarize") -> list[object]:
    """The judge's command line for a local server."""
    return [
        "--model_name_a", a, "--model_name_b", b, "--dataset", dataset, "--output", output, "--base_url", url, *more,
    ]  # fmt: skip


def summary_of(output: Path) -> dict[str, Any]:
    """The numbers beside a verdict file."""
    return json.loads(output.with_name(output.name + ".summary.json").read_text())

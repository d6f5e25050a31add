"""The code-task quickstart as a user starts it, in its short form."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.judging.helpers import environment, read_rows
from tests.launch import python_path


def test_smoke_run_leaves_models_answers_and_a_report(tmp_path: Path) -> None:
    program = [sys.executable, "-P", "-m", "quickstart.programs"]
    words = [*program, "--fast", "--output", str(tmp_path / "out"), "--seed", "7"]
    variables = environment(PYTHONPATH=python_path())
    done = subprocess.run(words, env=variables, capture_output=True, text=True, timeout=540, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    out = tmp_path / "out"
    summary = json.loads((out / "summary.json").read_text())
    strict = summary["strict_accuracy"]["all"]
    assert strict["problems"] == 16
    assert list(strict["ppo"]) == ["ppo-7"]
    assert set(summary["seconds"]) == {"model", "sft", "answers-sft", "ppo-7", "answers-ppo-7"}
    for name in ("sft", "ppo-7"):
        rows = read_rows(out / "answers" / f"{name}.jsonl")
        assert len(rows) == 16
        # nothing was lost to the sandbox
        assert all(row["reward"] is not None for row in rows)
    for words_of_screen in (
        "Held-out problems, before and after PPO",
        "PPO is",
        "of the held-out programs",
        "Finished in",
    ):
        assert words_of_screen in done.stdout
    assert "# Programs for held-out problems" in (out / "samples.md").read_text()
    assert (out / "curves.png").stat().st_size > 20_000

"""What the quickstart on programming problems shows at its end, on made-up results."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dschat.errors import UserError
from quickstart.program_report import (
    COLOURS,
    Rates,
    Summary,
    compare_answers,
    draw_curves,
    read_rates,
    results_table,
    samples_markdown,
    summarize,
    verdict,
)
from quickstart.report import Records


def share(mean: float, problems: int = 100) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.05, "high": mean + 0.05, "problems": problems}


def rates(accuracy: float, strict: float, hard: float | None) -> Rates:
    nothing = {"accuracy": None, "strict_accuracy": None, "pass_at": {}}
    difficult = nothing if hard is None else {"accuracy": share(0.1, 9), "strict_accuracy": share(hard, 9)}
    return {"all": {"accuracy": share(accuracy), "strict_accuracy": share(strict)}, "hard": difficult}


def summary_of(*strict: float) -> Summary:
    runs = {f"ppo-{number}": rates(0.5, each, 0.3) for number, each in enumerate(strict)}
    return summarize(rates(0.4, 0.25, 0.2), runs, versions={"torch": "1"}, seconds={"sft": 1.23})


def test_summary_has_means_and_deviations_over_the_seeds() -> None:
    document = summary_of(0.25, 0.35, 0.45).to_json()
    json.dumps(document, allow_nan=False)
    strict = document["strict_accuracy"]
    assert isinstance(strict, dict)
    assert strict["all"]["sft"] == 0.25
    assert strict["all"]["ppo"] == {"ppo-0": 0.25, "ppo-1": 0.35, "ppo-2": 0.45}
    assert strict["all"]["ppo_mean"] == pytest.approx(0.35)
    assert strict["all"]["ppo_deviation"] == pytest.approx(0.1)
    assert strict["hard"]["problems"] == 9
    assert document["seconds"] == {"sft": 1.2}
    assert summary_of(0.5).to_json()["strict_accuracy"]["all"]["ppo_deviation"] is None  # type: ignore[index]


def test_set_of_problems_of_which_nothing_was_graded_is_left_out() -> None:
    summary = summarize(rates(0.4, 0.25, 0.2), {"ppo-0": rates(0.5, 0.3, None)}, versions={}, seconds={})
    assert [row.problems for row in summary.rows] == ["all", "all"]


@pytest.mark.parametrize(
    ("strict", "words"),
    [
        ((0.32, 0.4, 0.45), "PPO is above SFT in 3 of 3 runs, and above the interval of SFT: 0.250 to 0.390"),
        ((0.4,), "above SFT in the one run, and above the interval"),
        ((0.26, 0.28, 0.29), "3 of 3 runs, on the mean within the interval"),
        ((0.2, 0.35, 0.45), "2 of 3 runs, on the mean within the interval of SFT: 0.250 to 0.333"),
        ((0.2, 0.2, 0.26), "PPO is NOT above SFT (above it in 1 of 3 runs): 0.250 to 0.220"),
    ],
)
def test_verdict_says_plainly_whether_ppo_helped(strict: tuple[float, ...], words: str) -> None:
    assert words in verdict(summary_of(*strict))


def test_table_shows_both_measures_by_difficulty() -> None:
    screen = io.StringIO()
    Console(file=screen, width=140).print(results_table(summary_of(0.25, 0.35, 0.45)))
    text = screen.getvalue()
    for part in (
        "0.250 (0.200 to 0.300)",
        "0.350 ± 0.100",
        "+0.100",
        "hard",
        "programs that pass all tests",
        "3 seeds",
    ):
        assert part in text


def write_answers(path: Path, name: str) -> Path:
    """Two answers to each of four problems."""
    rows = [
        {
            "prompt": f"problem {number}", "response": f"{name} {number}.{sample}\n```", "reward": 0.0,
            "sample": sample,
            "outcomes": ["pass", "wrong", "pass", "time_limit"], "difficulty": "", "id": str(number), "ungraded": "",
        }
        for number in range(4)
        for sample in range(2)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_samples_are_first_answers_to_spread_problems_with_their_outcomes(tmp_path: Path) -> None:
    files = {name: write_answers(tmp_path / f"{name}.jsonl", name) for name in ("SFT", "PPO")}
    samples = compare_answers(files, count=2)
    assert [sample.prompt for sample in samples] == ["problem 0", "problem 2"]
    text = samples_markdown(samples)
    assert "SFT 2.0" in text and "PPO 2.0" in text and ".1" not in text
    assert text.count("2 of 4 tests pass (time_limit: 1, wrong: 1)") == 4
    # a fence inside a program does not end its block
    assert "````text\nSFT 0.0\n```\n````" in text
    assert len(compare_answers(files, count=9)) == 4


def test_missing_or_ungraded_answers_are_one_sentence(tmp_path: Path) -> None:
    answers = tmp_path / "sft.jsonl"
    with pytest.raises(UserError, match="were not answered"):
        read_rates(answers)
    nothing = {"all": {"accuracy": None, "strict_accuracy": None, "pass_at": {}}}
    answers.with_name("sft.jsonl.run.json").write_text(json.dumps({"summary": {"pass_rates": nothing}}))
    with pytest.raises(UserError, match="no program could be graded"):
        read_rates(answers)


def ppo_records(level: float) -> Records:
    names = ("reward", "strict_pass_rate", "test_pass_rate", "test_compile_error_share", "penalty", "response_length")
    lines: Records = [{"step": step, **{name: level + step / 10 for name in names}} for step in range(1, 9)]
    return [*lines, {"step": 8, "eval_reward": 1.0, "eval_strict_pass_rate": 0.5}]


def test_picture_has_both_steps_and_every_run(tmp_path: Path) -> None:
    sft: Records = [{"step": step, "loss": 1 / step, "token_accuracy": 0.1 * step} for step in range(1, 9)]
    sft.append({"step": 8, "eval_loss": 0.2, "eval_token_accuracy": 0.7})
    draw_curves(tmp_path / "curves.png", sft, [ppo_records(0.0), ppo_records(0.5)])
    pixels = np.asarray(Image.open(tmp_path / "curves.png").convert("RGB")).astype(int)
    height = pixels.shape[0]
    for row in range(1, 4):
        band = pixels[row * height // 4 : (row + 1) * height // 4]
        for colour in COLOURS[:2]:
            wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
            assert (np.abs(band - wanted).max(axis=-1) <= 8).sum() > 300

"""The quickstart's report on made-up metrics: numbers worked out by hand, a picture with content, both runs shown."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from dschat.errors import UserError
from quickstart.report import (
    COLOURS,
    Records,
    SampleAnswer,
    Summary,
    draw_curves,
    first_and_last_fifth,
    read_metrics,
    results_table,
    samples_markdown,
    samples_panels,
    smoothed,
    summarize,
    summarize_ppo,
)

SFT: Records = [
    {"step": 0, "eval_loss": 7.5, "eval_perplexity": 1808.0},
    *({"step": i, "loss": 7.0 / i, "learning_rate": 1e-3} for i in range(1, 14)),
    {"step": 13, "eval_loss": 3.0, "eval_perplexity": 20.1},
]
REWARD: Records = [
    {"step": 0, "eval_accuracy": 0.5},
    *({"step": i, "loss": 0.7, "accuracy": 0.5 + 0.03 * i} for i in range(1, 12)),
    {"step": 11, "eval_accuracy": 0.8125},
]


def ppo_records(steps: int, *, gain: float, penalty: float) -> Records:
    """Rewards 0, gain, 2 gain, …; penalties likewise; the step's time alternates."""
    lines: Records = [{"step": 0, "eval_reward": -0.5, "eval_penalty": 0.0, "eval_response_length": 20.0}]
    for i in range(steps):
        lines.append(
            {
                "step": i + 1, "reward": gain * i, "reward_std": 0.5 + i, "penalty": penalty * i,
                "actor_loss": math.sin(i),
                "critic_loss": 1 / (i + 1), "response_length": 20.0 - i / 3, "step_seconds": 1.0 + i % 2,
            }
        )  # fmt: skip
    lines.append({"step": steps, "eval_reward": 1.25, "eval_penalty": 0.5, "eval_response_length": 18.0})
    return lines


PPO = {"kl": ppo_records(15, gain=0.1, penalty=0.01), "wasserstein": ppo_records(23, gain=0.2, penalty=0.002)}


@pytest.fixture
def summary() -> Summary:
    return summarize(SFT, REWARD, PPO, versions={"torch": "1.2"}, seconds={"sft": 12.34})


def test_summary_has_the_numbers_of_the_metrics(summary: Summary) -> None:
    document = summary.to_json()

    assert document["sft"] == {"eval_loss_before": 7.5, "eval_loss_after": 3.0}
    assert document["reward"] == {"eval_accuracy": 0.8125}
    assert document["versions"] == {"torch": "1.2"}
    assert document["seconds"] == {"sft": 12.3}
    # 15 steps: the first three have rewards 0, .1, .2 and deviations .5, 1.5, 2.5, the last three 1.2, 1.3, 1.4
    kl = document["ppo"]["kl"]
    assert kl == pytest.approx(
        {
            "reward_first": 0.1, "reward_last": 1.3, "reward_first_std": 1.5, "penalty_last": 0.13,
            "seconds_per_step": 1.0, "eval_reward_before": -0.5, "eval_reward_after": 1.25,
        }
    )  # fmt: skip
    # 23 steps: a fifth is four; .2 * (0 + 1 + 2 + 3) / 4 and .2 * (19 + 20 + 21 + 22) / 4
    wasserstein = document["ppo"]["wasserstein"]
    assert wasserstein["reward_first"] == pytest.approx(0.3)
    assert wasserstein["reward_last"] == pytest.approx(4.1)
    assert wasserstein["penalty_last"] == pytest.approx(0.041)


def test_summary_survives_strict_json(summary: Summary) -> None:
    text = json.dumps(summary.to_json(), allow_nan=False)

    assert set(json.loads(text)["ppo"]) == {"kl", "wasserstein"}


@pytest.mark.parametrize(("steps", "count"), [(1, 1), (4, 1), (5, 1), (9, 1), (10, 2), (41, 8)])
def test_fifths_are_whole_steps_and_never_empty(steps: int, count: int) -> None:
    first, last = first_and_last_fifth(range(steps))

    assert first == list(range(count))
    assert last == list(range(steps - count, steps))


def test_steps_whose_reward_is_null_do_not_count() -> None:
    records = ppo_records(10, gain=0.1, penalty=0.01)
    records[1]["reward"] = None

    # nine are left, so a fifth is one step
    assert summarize_ppo(records).reward_first == pytest.approx(0.1)


def test_missing_metric_is_named() -> None:
    with pytest.raises(UserError, match="'penalty'"):
        summarize_ppo([{"step": 1, "reward": 1.0, "reward_std": 1.0, "eval_reward": 1.0}])


def test_missing_file_is_named_and_blank_lines_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match=r"metrics\.jsonl is missing"):
        read_metrics(path)

    path.write_text('{"step": 1, "loss": 2.0}\n\n{"step": 2, "loss": null}\n')

    assert read_metrics(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": None}]


def test_smoothing_is_a_centred_mean_that_keeps_lines_and_constants() -> None:
    assert smoothed([3.0] * 7) == pytest.approx([3.0] * 7)
    assert smoothed([0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])[2:5] == pytest.approx([2.0, 3.0, 4.0])
    assert smoothed([0.0, 0.0, 5.0, 0.0, 0.0]) == pytest.approx([5 / 3, 5 / 4, 1.0, 5 / 4, 5 / 3])


def rendered(content: object) -> str:
    console = Console(width=130, record=True, file=io.StringIO())
    console.print(content)
    return console.export_text()


def test_table_shows_both_runs_and_the_change(summary: Summary) -> None:
    text = rendered(results_table(summary))

    for part in ("7.500", "3.000", "-60%", "0.812", "PPO, KL", "PPO, Wasserstein"):
        assert part in text
    assert "+1.200 (+0.8 standard deviations)" in text
    assert "nats per token" in text
    assert "embedding distance per token" in text


def colour_count(pixels: np.ndarray, colour: str, *, tolerance: int = 12) -> int:
    """Pixels of about this colour."""
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    return int((np.abs(pixels.astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def test_picture_has_kl_on_the_left_and_wasserstein_on_the_right(tmp_path: Path) -> None:
    path = tmp_path / "curves.png"

    draw_curves(path, SFT, REWARD, PPO)

    pixels = np.asarray(Image.open(path).convert("RGB"))
    height, width, _ = pixels.shape
    assert width >= 1000
    left, right = pixels[:, : width // 2], pixels[:, width // 2 :]
    # the curves of five panels, each some hundred pixels long and two wide
    for half, own, other in ((left, "kl", "wasserstein"), (right, "wasserstein", "kl")):
        assert colour_count(half, COLOURS[own]) > 2000
        assert colour_count(half, COLOURS[other]) == 0
    # every sixth of the height has a panel in it
    for row in range(6):
        band = pixels[row * height // 6 : (row + 1) * height // 6]
        assert (band.min(axis=-1) < 128).mean() > 0.005


SAMPLE = SampleAnswer(
    prompt="POST\nSubreddit: r/os\nReturns a [bold]list[/bold] | tuple of `names`.\nTL;DR: ",
    human=" List\n the names.",
    answers={"SFT": ("a [/x] answer", -0.25), "KL": ("an <b>answer</b> | 2", 1.5), "Wasserstein": (" \n", 0.75)},
)


def test_samples_are_shown_as_they_are(summary: Summary) -> None:
    text = rendered(samples_panels([SAMPLE]))

    for part in ("[bold]list[/bold] | tuple", "List the names.", "a [/x] answer", "-0.25", "+1.50", "(empty)", "+0.75"):
        assert part in text


def test_markdown_table_is_not_broken_by_the_answers() -> None:
    rows = [line for line in samples_markdown([SAMPLE]).splitlines() if line.startswith("|")]

    assert len(rows) == 2 + 4
    for row in rows:
        assert row.replace("\\|", "").count("|") == 4
    assert "\\<b>answer\\</b>" not in rows[0]
    assert any("\\<b>answer" in row and "+1.50" in row for row in rows)

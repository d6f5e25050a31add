"""What the quickstart shows at its end: numbers from the metrics.jsonl files, a table, a picture and sample answers."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Group
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from dschat.errors import UserError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Records = list[dict[str, float | None]]

REGULARIZERS = {"kl": "KL", "wasserstein": "Wasserstein"}
PENALTY_UNITS = {"kl": "nats per token", "wasserstein": "embedding distance per token"}
COLOURS = {"kl": "#1f77b4", "wasserstein": "#d95f02"}
SMOOTHING_STEPS = 5
PROMPT_CHARS_ON_SCREEN = 400


@dataclass(frozen=True)
class PPOSummary:
    """One PPO run. First and last are the first and the last fifth of its steps."""

    reward_first: float
    """Mean score of the sampled answers."""
    reward_last: float
    reward_first_std: float
    """Standard deviation of the answers' scores within a step, mean over the first fifth; the yardstick of the gain."""
    penalty_last: float
    """Mean penalty per token, before the coefficient: nats for KL, embedding distance for Wasserstein."""
    seconds_per_step: float
    """Median over the steps."""
    eval_reward_before: float
    """Mean score on held-out prompts before the first step."""
    eval_reward_after: float


@dataclass(frozen=True)
class Summary:
    """Everything in summary.json."""

    eval_loss_before: float
    """Step 1: held-out loss of the new model, in nats per token."""
    eval_loss_after: float
    eval_accuracy: float
    """Step 2: share of held-out pairs whose preferred answer has the higher score."""
    ppo: dict[str, PPOSummary]
    """By regularizer: kl and wasserstein."""
    versions: dict[str, str]
    seconds: dict[str, float]
    """Wall time of each stage."""

    def to_json(self) -> dict[str, object]:
        """The document that is written; NaN never occurs in it, because every number was found in the metrics."""
        return {
            "sft": {"eval_loss_before": self.eval_loss_before, "eval_loss_after": self.eval_loss_after},
            "reward": {"eval_accuracy": self.eval_accuracy},
            "ppo": {name: asdict(run) for name, run in self.ppo.items()},
            "versions": self.versions,
            "seconds": self.seconds,
        }


@dataclass(frozen=True)
class SampleAnswer:
    """One held-out prompt with what each model answers and the reward model's score of it."""

    prompt: str
    human: str
    """The dataset's preferred answer, for comparison."""
    answers: dict[str, tuple[str, float]]
    """By model name, in the order of training: answer and score."""


def read_metrics(path: Path) -> Records:
    """The lines of a step's metrics.jsonl in their order."""
    if not path.is_file():
        raise UserError(f"{path} is missing, so the step that writes it did not finish; see its log")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def column(records: Records, name: str) -> tuple[list[int], list[float]]:
    """Steps and values of one metric, without the lines that lack it or where it is null."""
    points = [(int(record["step"]), record[name]) for record in records if record.get(name) is not None]
    if not points:
        raise UserError(f"no line of metrics.jsonl has a value for {name!r}; the step that writes it went wrong")
    steps, values = zip(*points, strict=True)
    return list(steps), list(values)


def first_and_last_fifth(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The first and the last fifth of a run's steps, at least one step each."""
    count = max(1, len(values) // 5)
    return list(values[:count]), list(values[-count:])


def summarize_ppo(records: Records) -> PPOSummary:
    """The numbers of one PPO run."""
    first, last = first_and_last_fifth(column(records, "reward")[1])
    held_out = column(records, "eval_reward")[1]
    return PPOSummary(
        reward_first=statistics.fmean(first),
        reward_last=statistics.fmean(last),
        reward_first_std=statistics.fmean(first_and_last_fifth(column(records, "reward_std")[1])[0]),
        penalty_last=statistics.fmean(first_and_last_fifth(column(records, "penalty")[1])[1]),
        seconds_per_step=statistics.median(column(records, "step_seconds")[1]),
        eval_reward_before=held_out[0],
        eval_reward_after=held_out[-1],
    )


def summarize(
    sft: Records,
    reward: Records,
    ppo: Mapping[str, Records],
    *,
    versions: Mapping[str, str],
    seconds: Mapping[str, float],
) -> Summary:
    """The numbers of a whole quickstart.

    Args:
        sft: metrics of step 1.
        reward: metrics of step 2.
        ppo: metrics of step 3 by regularizer.
        versions: of the libraries in use.
        seconds: wall time of each stage.
    """
    losses = column(sft, "eval_loss")[1]
    return Summary(
        eval_loss_before=losses[0],
        eval_loss_after=losses[-1],
        eval_accuracy=column(reward, "eval_accuracy")[1][-1],
        ppo={name: summarize_ppo(records) for name, records in ppo.items()},
        versions=dict(versions),
        seconds={name: round(value, 1) for name, value in seconds.items()},
    )


def results_table(summary: Summary) -> Table:
    """The table at the end of the run."""
    table = Table(title="What was learned", title_justify="left")
    for name, justify in (("step", "left"), ("measure", "left"), ("before", "right"), ("after", "right"), ("", "left")):
        table.add_column(name, justify=justify)
    change = summary.eval_loss_after / summary.eval_loss_before - 1
    table.add_row(
        "1 supervised", "held-out loss", f"{summary.eval_loss_before:.3f}", f"{summary.eval_loss_after:.3f}",
        f"{change:+.0%}",
    )  # fmt: skip
    table.add_row("2 reward model", "accuracy on held-out pairs", "0.5 by chance", f"{summary.eval_accuracy:.3f}", "")
    for name, run in summary.ppo.items():
        title = f"3 PPO, {REGULARIZERS[name]}"
        gain = run.reward_last - run.reward_first
        table.add_section()
        table.add_row(
            title, "reward, first and last fifth of the steps", f"{run.reward_first:.3f}", f"{run.reward_last:.3f}",
            f"{gain:+.3f} ({_in_deviations(gain, run.reward_first_std)})",
        )  # fmt: skip
        table.add_row(
            "", "reward on held-out prompts", f"{run.eval_reward_before:.3f}", f"{run.eval_reward_after:.3f}",
            f"{run.eval_reward_after - run.eval_reward_before:+.3f}",
        )  # fmt: skip
        table.add_row("", f"penalty ({PENALTY_UNITS[name]})", "", f"{run.penalty_last:.4g}", "last fifth")
        table.add_row("", "seconds per step", "", f"{run.seconds_per_step:.2f}", "median")
    return table


def _in_deviations(gain: float, deviation: float) -> str:
    return f"{gain / deviation:+.1f} standard deviations" if deviation > 0 else "one step only"


def samples_panels(samples: Sequence[SampleAnswer]) -> Group:
    """Prompts and answers for the screen."""
    panels = []
    for sample in samples:
        end = sample.prompt[-PROMPT_CHARS_ON_SCREEN:]
        text = Text(("…" if len(end) < len(sample.prompt) else "") + end.rstrip() + "\n\n", style="dim")
        text.append(f"{'human':12} {'':>7}  {_one_line(sample.human)}\n")
        for model, (answer, score) in sample.answers.items():
            text.append(f"{model:12} {score:+7.2f}  {_one_line(answer)}\n")
        text.rstrip()
        panels.append(Panel(text, title="held-out prompt", title_align="left"))
    return Group(*panels)


def samples_markdown(samples: Sequence[SampleAnswer]) -> str:
    """The same as samples_panels, in full, as a Markdown document."""
    parts = ["# Answers to held-out prompts, before and after PPO\n"]
    for number, sample in enumerate(samples, start=1):
        parts.append(f"## {number}\n\n```text\n{sample.prompt.rstrip().replace('```', '` ` `')}\n```\n")
        rows = [f"| human |  | {_table_cell(sample.human)} |"]
        rows += [
            f"| {model} | {score:+.2f} | {_table_cell(answer)} |" for model, (answer, score) in sample.answers.items()
        ]
        parts.append("\n".join(["| answer by | score | text |", "|---|---:|---|", *rows]) + "\n")
    return "\n".join(parts)


def _one_line(text: str) -> str:
    return " ".join(text.split()) or "(empty)"


def _table_cell(text: str) -> str:
    escaped = _one_line(text)
    for mark in ("\\", "|", "`", "*", "_", "<", "[", "]"):
        escaped = escaped.replace(mark, "\\" + mark)
    return escaped


def draw_curves(path: Path, sft: Records, reward: Records, ppo: Mapping[str, Records]) -> None:
    """Write the picture of the learning curves: steps 1 and 2 on top, then the PPO runs side by side.

    Args:
        path: PNG file to write.
        sft: metrics of step 1.
        reward: metrics of step 2.
        ppo: metrics of step 3 by regularizer, one column each.
    """
    # slow to import, and only this function needs it; no display is opened
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = ("reward", "penalty", "response_length", "actor_loss", "critic_loss")
    figure = Figure(figsize=(11, 16), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(panels), len(ppo), squeeze=False)
    draw_training(axes[0][0], sft, "loss", "Step 1: supervised loss", "nats per token")
    draw_training(axes[0][-1], reward, "accuracy", "Step 2: reward-model accuracy", "share of pairs")
    for index, (name, records) in enumerate(ppo.items()):
        for row, metric in enumerate(panels, start=1):
            _draw_ppo(axes[row][index], records, metric, name)
    for row, metric in enumerate(panels, start=1):
        # penalties have different units; everything else is compared at the same scale
        if metric != "penalty":
            _share_limits(axes[row])
    figure.suptitle("Quickstart learning curves", fontsize=14)
    figure.savefig(path, dpi=110)


def draw_training(axis: Axes, records: Records, metric: str, title: str, unit: str) -> None:
    """One metric of step 1 or 2, on training batches and on held-out rows."""
    steps, values = column(records, metric)
    axis.plot(steps, values, color="#999999", linewidth=0.8, label="training batch")
    axis.plot(steps, smoothed(values), color="#333333", label="training, smoothed")
    steps, values = column(records, f"eval_{metric}")
    axis.plot(steps, values, color="#2ca02c", marker="o", linestyle="none", label="held-out")
    axis.set(title=title, xlabel="optimizer step", ylabel=unit)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def _draw_ppo(axis: Axes, records: Records, metric: str, name: str) -> None:
    titles = {
        "reward": ("reward", "reward-model score"),
        "penalty": ("penalty", PENALTY_UNITS[name]),
        "response_length": ("response length", "tokens"),
        "actor_loss": ("actor loss", "clipped policy loss"),
        "critic_loss": ("critic loss", "clipped value loss"),
    }
    title, unit = titles[metric]
    steps, values = column(records, metric)
    axis.plot(steps, values, color=COLOURS[name], alpha=0.35, linewidth=0.9, label="each step")
    axis.plot(steps, smoothed(values), color=COLOURS[name], linewidth=2, label="smoothed")
    held_out = f"eval_{metric}"
    if any(record.get(held_out) is not None for record in records):
        steps, values = column(records, held_out)
        axis.plot(steps, values, color="#2ca02c", marker="o", linestyle="none", label="held-out prompts")
    axis.set(title=f"Step 3, {REGULARIZERS[name]}: {title}", xlabel="PPO step", ylabel=unit)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over the SMOOTHING_STEPS values around each one, over fewer at the ends, where there are fewer."""
    reach = SMOOTHING_STEPS // 2
    return [statistics.fmean(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]


def _share_limits(axes: Sequence[Axes]) -> None:
    limits = [axis.get_ylim() for axis in axes]
    for axis in axes:
        axis.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))

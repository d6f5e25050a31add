"""What the code-task quickstart shows at its end: pass rates before and after PPO, a picture, and sample programs."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dschat.errors import UserError
from quickstart.report import Records, column, draw_training, smoothed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Rates = Mapping[str, Any]
"""`pass_rates` of a result file's .run.json: by set of problems, `all` first."""

MEASURES = {"accuracy": "tests that pass", "strict_accuracy": "programs that pass all tests"}
PANELS = {
    "reward": ("reward", "score of a program"),
    "strict_pass_rate": ("programs that pass all tests", "share of answers"),
    "test_pass_rate": ("tests that pass", "mean share of an answer's tests"),
    "test_compile_error_share": ("programs that do not compile", "share of answers"),
    "penalty": ("Wasserstein penalty", "embedding distance per token"),
    "response_length": ("response length", "tokens"),
}
COLOURS = ("#d95f02", "#1f77b4", "#7570b3", "#e7298a", "#66a61e")


@dataclass(frozen=True)
class Row:
    """One measure on one set of held-out problems."""

    measure: str
    """A key of MEASURES."""
    problems: str
    """all, or a difficulty."""
    count: int
    sft: float
    """Share, 0 to 1, before PPO."""
    low: float
    """Of its 95 % interval, over problems."""
    high: float
    ppo: tuple[float, ...]
    """After PPO, one for each seed."""

    @property
    def mean(self) -> float:
        """Over the seeds of PPO."""
        return statistics.fmean(self.ppo)

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over the seeds, None for one seed."""
        return statistics.stdev(self.ppo) if len(self.ppo) > 1 else None

    @property
    def num_above(self) -> int:
        """Runs of PPO that end above SFT."""
        return sum(share > self.sft for share in self.ppo)


@dataclass(frozen=True)
class Summary:
    """Everything in summary.json."""

    rows: tuple[Row, ...]
    runs: tuple[str, ...]
    """Names of the PPO runs."""
    versions: dict[str, str]
    seconds: dict[str, float]
    """Wall time of each stage."""

    @property
    def main(self) -> Row:
        """Programs that pass all tests, over all held-out problems."""
        return next(row for row in self.rows if (row.measure, row.problems) == ("strict_accuracy", "all"))

    def to_json(self) -> dict[str, object]:
        """The document that is written."""
        found: dict[str, Any] = {measure: {} for measure in MEASURES}
        for row in self.rows:
            found[row.measure][row.problems] = {
                "problems": row.count, "sft": row.sft, "sft_interval": [row.low, row.high],
                "ppo": dict(zip(self.runs, row.ppo, strict=True)), "ppo_mean": row.mean, "ppo_deviation": row.deviation,
            }  # fmt: skip
        return {**found, "versions": self.versions, "seconds": self.seconds}


def read_rates(answers: Path) -> Rates:
    """The pass rates beside a result file of `inference_apps.py`."""
    path = answers.with_name(f"{answers.name}.run.json")
    if not path.is_file():
        raise UserError(f"{path} is missing, so the held-out problems were not answered; see the log")
    rates = json.loads(path.read_text(encoding="utf-8"))["summary"]["pass_rates"]
    if rates["all"]["accuracy"] is None:
        raise UserError(f"{answers}: no program could be graded; its `ungraded` column says why")
    return rates


def summarize(sft: Rates, ppo: Mapping[str, Rates], *, versions: Mapping[str, str], seconds: Mapping[str, float]) -> (
    Summary
):  # fmt: skip
    """The numbers of a whole quickstart; a set of problems of which nothing was graded is left out.

    Args:
        sft: pass rates before PPO.
        ppo: after it, by the name of the run.
        versions: of the libraries in use.
        seconds: wall time of each stage.
    """
    rows = []
    for measure in MEASURES:
        for name, rates in sft.items():
            after = [run[name][measure] for run in ppo.values() if name in run and run[name][measure]]
            before = rates[measure]
            if before and len(after) == len(ppo):
                shares = tuple(share["mean"] for share in after)
                count = before["problems"]
                rows.append(Row(measure, name, count, before["mean"], before["low"], before["high"], shares))
    rounded = {name: round(value, 1) for name, value in seconds.items()}
    return Summary(tuple(rows), tuple(ppo), dict(versions), rounded)


def results_table(summary: Summary) -> Table:
    """The table at the end of the run."""
    count = len(summary.runs)
    table = Table(title="Held-out problems, before and after PPO", title_justify="left")
    after = "PPO" if count == 1 else f"PPO, {count} seeds, mean ± sd"
    for name, justify in (
        *(("measure", "left"), ("problems", "left"), ("", "right")),
        *(("SFT (95 % interval)", "right"), (after, "right"), ("change", "right")),
    ):
        table.add_column(name, justify=justify)
    for row in summary.rows:
        if row.problems == "all" and row.measure != next(iter(MEASURES)):
            table.add_section()
        deviation = "" if row.deviation is None else f" ± {row.deviation:.3f}"
        table.add_row(
            MEASURES[row.measure] if row.problems == "all" else "", row.problems, str(row.count),
            f"{row.sft:.3f} ({row.low:.3f} to {row.high:.3f})", f"{row.mean:.3f}{deviation}",
            f"{row.mean - row.sft:+.3f}",
        )  # fmt: skip
    return table


def verdict(summary: Summary) -> str:
    """One sentence that says whether PPO was worth it, also where it was not."""
    row, count = summary.main, len(summary.runs)
    change = f"{row.sft:.3f} to {row.mean:.3f} of the held-out programs pass all tests"
    if row.num_above == count and row.mean > row.high:
        return f"PPO is above SFT in {_of(count, count)}, and above the interval of SFT: {change}."
    if row.mean > row.sft:
        return f"PPO is above SFT in {_of(row.num_above, count)}, on the mean within the interval of SFT: {change}."
    return f"PPO is NOT above SFT (above it in {_of(row.num_above, count)}): {change}."


def _of(part: int, count: int) -> str:
    return "the one run" if part == count == 1 else f"{part} of {count} runs"


@dataclass(frozen=True)
class SampleProgram:
    """One held-out problem with what each model answered and how the tests ended."""

    prompt: str
    difficulty: str
    answers: dict[str, tuple[str, list[str]]]
    """By model name: answer and outcomes."""


def compare_answers(files: Mapping[str, Path], *, count: int) -> list[SampleProgram]:
    """The first answers to some problems, spread evenly over those that were answered.

    Args:
        files: result files on the same problems, by the name to show.
        count: fewer come back where fewer problems were answered.
    """
    rows = {name: _first_answers(path) for name, path in files.items()}
    first = next(iter(rows.values()))
    places = [index * len(first) // count for index in range(min(count, len(first)))]
    return [
        SampleProgram(
            first[place]["prompt"],
            first[place]["difficulty"],
            {name: (found[place]["response"], found[place]["outcomes"]) for name, found in rows.items()},
        )
        for place in places
    ]


def _first_answers(path: Path) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if row["sample"] == 0]


def samples_markdown(samples: Sequence[SampleProgram]) -> str:
    """Problems, programs and outcomes as a Markdown document."""
    parts = ["# Programs for held-out problems, before and after PPO\n"]
    for number, sample in enumerate(samples, start=1):
        parts.append(f"## {number} ({sample.difficulty or 'no difficulty'})\n\n{_fenced(sample.prompt)}\n")
        for model, (answer, outcomes) in sample.answers.items():
            parts.append(f"{model}: {_told(outcomes)}\n\n{_fenced(answer)}\n")
    return "\n".join(parts)


def _told(outcomes: Sequence[str]) -> str:
    """Such as "5 of 8 tests pass (wrong: 3)"."""
    others = {name: outcomes.count(name) for name in sorted({*outcomes} - {"pass"})}
    why = f" ({', '.join(f'{name}: {count}' for name, count in others.items())})" if others else ""
    return f"{outcomes.count('pass')} of {len(outcomes)} tests pass{why}"


def _fenced(text: str) -> str:
    """A block that no run of backticks in the text can end."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}text\n{text.rstrip()}\n{fence}"


def draw_curves(path: Path, sft: Records, ppo: Sequence[Records]) -> None:
    """Write the picture of the learning curves: SFT on top, then one panel for each measure of PPO, seeds together.

    Args:
        path: PNG file to write.
        sft: metrics of supervised fine-tuning.
        ppo: metrics of each PPO run.
    """
    # slow to import, and only this function needs it; no display is opened
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 13), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1 + len(PANELS) // 2, 2, squeeze=False)
    draw_training(axes[0][0], sft, "loss", "Supervised loss", "nats per token")
    draw_training(axes[0][1], sft, "token_accuracy", "Supervised token accuracy", "share of tokens")
    for axis, (metric, (title, unit)) in zip(axes[1:].flat, PANELS.items(), strict=True):
        _draw_runs(axis, ppo, metric, title, unit)
    figure.suptitle("Code-task quickstart: learning curves", fontsize=14)
    figure.savefig(path, dpi=110)


def _draw_runs(axis: Axes, runs: Sequence[Records], metric: str, title: str, unit: str) -> None:
    held_out = f"eval_{metric}"
    for number, records in enumerate(runs):
        colour = COLOURS[number % len(COLOURS)]
        steps, values = column(records, metric)
        axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
        axis.plot(steps, smoothed(values), color=colour, linewidth=1.8, label=f"run {number + 1}, smoothed")
        if any(record.get(held_out) is not None for record in records):
            steps, values = column(records, held_out)
            axis.plot(steps, values, color=colour, marker="o", markersize=4, linestyle="none")
    axis.set(title=f"PPO: {title}", xlabel="PPO step (dots: held-out problems)", ylabel=unit)
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")

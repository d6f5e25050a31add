"""Tables and pictures of the comparison, from the lines of results.jsonl."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compare_regularizers.runs import VARIANTS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Result = Mapping[str, Any]
Point = Mapping[str, float]

COLOURS = {"none": "#333333", "kl": "#1f77b4", "truncated": "#999999", "capped": "#d95f02", "debiased": "#7b3294"}
METRICS = ("reward", "kl", "wasserstein", "top_distance", "response_length")
COMPARED = ("kl", "wasserstein", "top_distance")
REWARD_LEVELS = (0.5, 0.8)
LABELS = {
    "reward": "reward on held-out prompts",
    "kl": "KL to the reference, nats per token",
    "wasserstein": "Wasserstein distance to the reference per token",
    "top_distance": "mean distance among the 10 likeliest tokens",
}


@dataclass(frozen=True)
class Cell:
    """One regularizer at one strength, over its seeds."""

    regularizer: str
    strength: float
    beta: float
    """Mean over seeds; equal for all of them, because the reference is."""
    seeds: int
    mean: Point
    """Of each of METRICS, on the runs' own answers."""
    deviation: Point
    """Sample standard deviation over seeds; 0 for one seed."""


@dataclass(frozen=True)
class AtEqualReward:
    """What a regularizer costs where it has earned the same reward as the others."""

    regularizer: str
    seeds: int
    """Seeds whose runs reach that reward."""
    mean: Point
    """kl, wasserstein and top_distance, interpolated; empty where no seed reaches the reward."""
    deviation: Point


def finished(results: Iterable[Result]) -> list[Result]:
    """The runs that came to their end."""
    return [result for result in results if "fault" not in result]


def cells(results: Sequence[Result]) -> list[Cell]:
    """Means and deviations over seeds, in the order of VARIANTS, then of strength."""
    groups: dict[tuple[str, float], list[Result]] = {}
    for result in finished(results):
        groups.setdefault((result["regularizer"], result["strength"]), []).append(result)
    order = list(VARIANTS)
    return [
        Cell(
            regularizer=name,
            strength=strength,
            beta=statistics.fmean(result["beta"] for result in group),
            seeds=len(group),
            mean={metric: statistics.fmean(result["own"][metric] for result in group) for metric in METRICS},
            deviation={metric: _deviation([result["own"][metric] for result in group]) for metric in METRICS},
        )
        for (name, strength), group in sorted(groups.items(), key=lambda item: (order.index(item[0][0]), item[0][1]))
    ]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def reward_level(results: Sequence[Result], share: float) -> float:
    """A reward to compare at.

    Args:
        results: of finished runs.
        share: of the way from the reference's reward to the best mean reward that every regularizer reaches.
    """
    base = statistics.fmean(result["reference"]["reward"] for result in results)
    best: dict[str, float] = {}
    for cell in cells(results):
        best[cell.regularizer] = max(best.get(cell.regularizer, cell.mean["reward"]), cell.mean["reward"])
    return base + share * (min(best.values()) - base)


def at_equal_reward(results: Sequence[Result], level: float) -> list[AtEqualReward]:
    """KL, Wasserstein distance and closeness of each regularizer at one reward.

    For each seed the points (reward, metric) of all strengths, and of the reference as the limit of a penalty without
    bound, are joined by straight lines in the order of their rewards and read off at `level`.
    """
    by_regularizer: dict[str, dict[int, list[Result]]] = {}
    for result in finished(results):
        by_regularizer.setdefault(result["regularizer"], {}).setdefault(result["seed"], []).append(result)
    rows = []
    for name in (name for name in VARIANTS if name in by_regularizer):
        read: list[Point] = []
        for runs in by_regularizer[name].values():
            points = sorted([runs[0]["reference"], *(run["own"] for run in runs)], key=lambda point: point["reward"])
            if points[0]["reward"] <= level <= points[-1]["reward"]:
                read.append({metric: _interpolate(points, metric, level) for metric in COMPARED})
        metrics = COMPARED if read else ()
        rows.append(
            AtEqualReward(
                regularizer=name,
                seeds=len(read),
                mean={metric: statistics.fmean(point[metric] for point in read) for metric in metrics},
                deviation={metric: _deviation([point[metric] for point in read]) for metric in metrics},
            )
        )
    return rows


def _interpolate(points: Sequence[Point], metric: str, level: float) -> float:
    """The metric at a reward between those of two neighbouring points; the points are sorted by reward."""
    after = next(index for index, point in enumerate(points) if point["reward"] >= level)
    right, left = points[after], points[max(after - 1, 0)]
    width = right["reward"] - left["reward"]
    share = (level - left["reward"]) / width if width else 1.0
    return left[metric] + share * (right[metric] - left[metric])


def markdown(results: Sequence[Result]) -> str:
    """All numbers as two Markdown tables with a sentence before each."""
    done = finished(results)
    reference = {metric: statistics.fmean(result["reference"][metric] for result in done) for metric in METRICS}
    lines = [
        "Means ± standard deviations over seeds, on held-out prompts; strength is β in units of the penalty's scale.",
        "",
        "| regularizer | strength | β | seeds | reward | KL | Wasserstein | top-10 distance | tokens |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
        "| (reference) | | | | " + " | ".join(f"{reference[metric]:.3g}" for metric in METRICS) + " |",
    ]
    for cell in cells(done):
        numbers = [_spread(cell.mean[metric], cell.deviation[metric], cell.seeds) for metric in METRICS]
        title = VARIANTS[cell.regularizer].title
        lines.append(f"| {title} | {cell.strength:g} | {cell.beta:.3g} | {cell.seeds} | {' | '.join(numbers)} |")
    for share in REWARD_LEVELS:
        lines += ["", *_equal_reward_lines(done, share)]
    for result in results:
        if "fault" in result:
            lines += ["", f"Ended early: {result['regularizer']} {result['strength']:g}, seed {result['seed']}"]
    return "\n".join(lines) + "\n"


def _equal_reward_lines(done: Sequence[Result], share: float) -> list[str]:
    level = reward_level(done, share)
    lines = [
        f"At equal reward {level:.3g}, {share:.0%} of the way from the reference to the best reward that all reach:",
        "",
        "| regularizer | seeds | KL | Wasserstein | top-10 distance |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in at_equal_reward(done, level):
        numbers = [f"{row.mean[metric]:.3g} ± {row.deviation[metric]:.1g}" for metric in row.mean] or [
            "not reached"
        ] * 3
        lines.append(f"| {VARIANTS[row.regularizer].title} | {row.seeds} | {' | '.join(numbers)} |")
    return lines


def _spread(mean: float, deviation: float, seeds: int) -> str:
    return f"{mean:.3g} ± {deviation:.1g}" if seeds > 1 else f"{mean:.3g}"


def draw_comparison(path: Path, results: Sequence[Result]) -> None:
    """Write the picture: reward against both distances, closeness against reward, one distance against the other."""
    # slow to import; no display is opened
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    done = finished(results)
    figure = Figure(figsize=(11, 9), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, 2).flatten()
    panels = (("kl", "reward"), ("wasserstein", "reward"), ("reward", "top_distance"), ("kl", "wasserstein"))
    for axis, (x, y) in zip(axes, panels, strict=True):
        _draw_panel(axis, done, x, y)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6)
    seeds = len({result["seed"] for result in done})
    figure.suptitle(f"Regularizers over a grid of strengths; {seeds} seed(s): small dots runs, large ones their means")
    figure.savefig(path, dpi=110)


def _draw_panel(axis: Axes, done: Sequence[Result], x: str, y: str) -> None:
    reference = {metric: statistics.fmean(result["reference"][metric] for result in done) for metric in (x, y)}
    axis.scatter(reference[x], reference[y], marker="*", s=140, color="#000000", zorder=4, label="reference")
    table = cells(done)
    for name in dict.fromkeys(cell.regularizer for cell in table):
        colour = COLOURS[name]
        runs = [result["own"] for result in done if result["regularizer"] == name]
        axis.scatter([run[x] for run in runs], [run[y] for run in runs], s=12, color=colour, alpha=0.5)
        mine = [cell for cell in table if cell.regularizer == name]
        axis.errorbar(
            [cell.mean[x] for cell in mine], [cell.mean[y] for cell in mine],
            xerr=[cell.deviation[x] for cell in mine], yerr=[cell.deviation[y] for cell in mine],
            color=colour, marker="o", markersize=7, linewidth=1.2, capsize=2, label=VARIANTS[name].title,
        )  # fmt: skip
    axis.set(xlabel=LABELS[x], ylabel=LABELS[y])
    axis.locator_params(nbins=6)
    axis.grid(alpha=0.3)


def draw_answer(path: Path, trace: Mapping[str, Any], *, title: str) -> None:
    """Write the picture of one answer: each token with its log-ratio and its two transport penalties.

    Args:
        path: PNG file to write.
        trace: `tokens`, and one list of numbers for each of `kl`, `truncated` and `debiased`.
        title: which policy answered.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = range(len(trace["tokens"]))
    figure = Figure(figsize=(max(8.0, 0.5 * len(places)), 6), layout="constrained")
    FigureCanvasAgg(figure)
    top, bottom = figure.subplots(2, 1, sharex=True)
    top.bar(places, trace["kl"], color=COLOURS["kl"], label="KL: log π − log π_ref")
    top.set(title=title, ylabel="nats")
    for shift, name in ((-0.2, "truncated"), (0.2, "debiased")):
        bottom.bar([p + shift for p in places], trace[name], 0.4, color=COLOURS[name], label=VARIANTS[name].title)
    bottom.set(ylabel="embedding distance")
    texts = [token.replace(" ", "␣").replace("\n", "⏎").replace("$", r"\$") for token in trace["tokens"]]
    bottom.set_xticks(list(places), texts, rotation=60, ha="right", rotation_mode="anchor")
    for axis in (top, bottom):
        axis.axhline(0, color="#333333", linewidth=0.8)
        axis.grid(axis="y", alpha=0.3)
        axis.legend(fontsize="small")
    figure.savefig(path, dpi=110)

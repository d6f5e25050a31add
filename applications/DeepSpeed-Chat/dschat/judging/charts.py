"""Charts as inline SVG, in the page's own colours, so that the report needs no library and no network."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 560, 280
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 44
BINS = 30
TICKS = 5
MAX_POINTS = 1_500
"""Points drawn per model; more only make the page heavy."""
LONGEST_TAIL = 99.0
"""Percentile at which a chart's length axis ends, so that one huge answer does not flatten all others."""

Series = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Scale:
    """A linear map from values to pixels."""

    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        """Pixel of a value; values beyond the range are drawn at its edge."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Round values inside the range, about five of them."""
        raw = (self.high - self.low) / TICKS
        size = 10 ** np.floor(np.log10(raw))
        step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= raw)
        first = np.ceil(self.low / step)
        return [float(step * index) + 0.0 for index in np.arange(first, np.floor(self.high / step) + 1)]


def histogram(series: Series, *, label: str, counts: bool = False) -> str:
    """Overlaid outlines of each series' distribution, as shares of its values.

    Args:
        series: values by name, in the order of the page's colours.
        label: of the horizontal axis.
        counts: the values are whole numbers with a long tail: bins hold equally many of them, and the axis ends at the
            99th percentile.
    """
    filled = {name: np.asarray(values, dtype=float) for name, values in series.items()}
    edges = _edges(np.concatenate(list(filled.values())), counts=counts)
    low, high = float(edges[0]), float(edges[-1])
    shares = {
        name: np.histogram(np.clip(values, low, high), edges)[0] / max(len(values), 1)
        for name, values in filled.items()
    }
    x = Scale(low, high, LEFT, WIDTH - RIGHT)
    y = Scale(0.0, max(float(max(share.max() for share in shares.values())) * 1.08, 1e-9), HEIGHT - BOTTOM, TOP)
    body = []
    for index, (name, share) in enumerate(shares.items()):
        points = [(x(low), y(0))]
        for left, right, value in zip(edges[:-1], edges[1:], share, strict=True):
            points += [(x(left), y(value)), (x(right), y(value))]
        points.append((x(high), y(0)))
        body.append(
            f'<polyline class="area s{index}" points="{_points(points)}"><title>{html.escape(name)}</title></polyline>'
        )
        if len(filled[name]):
            mean = x(float(filled[name].mean()))
            body.append(f'<line class="mean s{index}" x1="{mean:.1f}" x2="{mean:.1f}" y1="{TOP}" y2="{y(0):.1f}"/>')
    return _svg(x, y, label, "share of answers", "".join(body))


def scatter(horizontal: Series, vertical: Series, *, label: str, vertical_label: str) -> str:
    """One dot per answer.

    Args:
        horizontal: values by name.
        vertical: as many values for each name.
        label: of the horizontal axis.
        vertical_label: of the vertical one.
    """
    x = Scale(*_range(np.concatenate([np.asarray(v, float) for v in horizontal.values()]), clip_tail=True), LEFT,
              WIDTH - RIGHT)  # fmt: skip
    y = Scale(*_range(np.concatenate([np.asarray(v, float) for v in vertical.values()])), HEIGHT - BOTTOM, TOP)
    dots = []
    for index, name in enumerate(horizontal):
        every = max(1, -(-len(horizontal[name]) // MAX_POINTS))
        for left, up in list(zip(horizontal[name], vertical[name], strict=True))[::every]:
            dots.append(f'<circle class="s{index}" cx="{x(left):.1f}" cy="{y(up):.1f}" r="2.4"/>')
    return _svg(x, y, label, vertical_label, "".join(dots))


def _edges(values: np.ndarray, *, counts: bool) -> np.ndarray:
    """Edges of about thirty bins of equal width."""
    low, high = _range(values, clip_tail=counts)
    if not counts:
        return np.linspace(low, high, BINS + 1)
    width = max(1, round((high - low) / BINS))
    return np.arange(np.floor(low) - 0.5, np.ceil(high) + width, width)


def _range(values: np.ndarray, *, clip_tail: bool = False) -> tuple[float, float]:
    if len(values) == 0:
        return 0.0, 1.0
    low = float(values.min())
    high = float(np.percentile(values, LONGEST_TAIL) if clip_tail else values.max())
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _svg(x: Scale, y: Scale, label: str, vertical_label: str, body: str) -> str:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for tick in x.ticks():
        parts.append(f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{TOP}" y2="{bottom}"/>')
        parts.append(f'<text x="{x(tick):.1f}" y="{bottom + 16}" text-anchor="middle">{tick:g}</text>')
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>')
    middle = (TOP + bottom) / 2
    parts.append(f'<text x="{(LEFT + right) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{html.escape(label)}</text>')
    turned = f'transform="translate(14 {middle}) rotate(-90)" text-anchor="middle"'
    parts.append(f"<text {turned}>{html.escape(vertical_label)}</text>")
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(parts)}{body}</svg>'


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{left:.1f},{up:.1f}" for left, up in points)

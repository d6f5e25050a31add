"""Charts are well-formed SVG whose shapes have the data's proportions."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from dschat.judging.charts import BOTTOM, HEIGHT, LEFT, MAX_POINTS, RIGHT, WIDTH, Scale, histogram, scatter


def test_values_beyond_a_scale_are_drawn_at_its_edge() -> None:
    scale = Scale(0.0, 10.0, 100.0, 0.0)
    assert [scale(value) for value in (-1.0, 0.0, 2.5, 10.0, 99.0)] == [100.0, 100.0, 75.0, 0.0, 0.0]


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0.0, 1.0, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (-7.0, 30.0, [0, 10, 20, 30]),
        (3.1, 3.9, [3.2, 3.4, 3.6, 3.8]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, ticks: list[float]) -> None:
    assert Scale(low, high, 0.0, 1.0).ticks() == pytest.approx(ticks)


def test_a_histogram_has_an_outline_and_a_mean_for_every_series() -> None:
    picture = ElementTree.fromstring(histogram({"a<b": [1.0, 2.0, 3.0], "c": [3.0]}, label="reward & more"))
    outlines = picture.findall("polyline")
    assert [outline.find("title").text for outline in outlines] == ["a<b", "c"]
    bottom = HEIGHT - BOTTOM
    for outline in outlines:
        points = [tuple(map(float, point.split(","))) for point in outline.attrib["points"].split()]
        assert points[0] == (LEFT, bottom) and points[-1] == (WIDTH - RIGHT, bottom)
    means = [float(line.attrib["x1"]) for line in picture.findall("line") if "mean" in line.attrib["class"]]
    assert means == pytest.approx([(LEFT + WIDTH - RIGHT) / 2, WIDTH - RIGHT], abs=0.1)


@pytest.mark.parametrize("values", [[], [5.0], [5.0, 5.0]])
def test_few_or_equal_values_still_make_a_picture(values: list[float]) -> None:
    ElementTree.fromstring(histogram({"a": values}, label="tokens", counts=True))
    ElementTree.fromstring(scatter({"a": values}, {"a": values}, label="tokens", vertical_label="reward"))


def test_only_so_many_dots_are_drawn() -> None:
    values = np.arange(4 * MAX_POINTS, dtype=float)
    picture = ElementTree.fromstring(scatter({"a": values}, {"a": values}, label="x", vertical_label="y"))
    assert len(picture.findall("circle")) == MAX_POINTS

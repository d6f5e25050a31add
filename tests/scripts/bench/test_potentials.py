"""The contenders of the benchmark of potentials solve the problem that they are timed on."""

from __future__ import annotations

import argparse

import pytest
import torch
from rich.console import Console

from dschat.optimal_transport import TokenGeometry
from potentials import CONTENDERS, Case, compare, make_embeddings, measure_geometry, show

CPU = torch.device("cpu")
CASE = Case(vocab_size=60, width=4, positions=5, num_neighbors=4, top_k=8, max_iter=10, epsilon=0.3)


@pytest.fixture
def options() -> argparse.Namespace:
    return argparse.Namespace(
        contenders=[name for name in CONTENDERS if name != "geomloss"], repeats=1, seconds_each=5.0
    )


def test_every_contender_runs_and_the_libraries_solve_the_capped_problem(options: argparse.Namespace) -> None:
    geometry = TokenGeometry.from_embeddings(make_embeddings(60, 4, CPU), num_neighbors=4)
    results = {result.contender: result for result in compare(CASE, geometry, options)}
    assert set(results) == set(options.contenders)
    assert results["floor"].ratio_to_floor == 1.0
    for name in ("capped", "pot"):
        error = results[name].marginal_error
        assert error is not None and error <= 1e-2, name
    console = Console(width=160, record=True)
    show(list(results.values()), console)
    printed = console.export_text()
    assert all(name in printed for name in results)


def test_building_a_geometry_is_measured_against_the_published_way(options: argparse.Namespace) -> None:
    results = measure_geometry(make_embeddings(60, 4, CPU), CASE, options)
    assert len(results) >= 2
    assert all(result.microseconds_each > 0 for result in results)

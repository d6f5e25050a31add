"""Distances between tokens are measured anew by every run: no file of them can be stale, torn or another model's."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dschat.optimal_transport import TokenGeometry
from toys.jobs import Job, make_folders, ppo_arguments, run_job

NEIGHBORS = 50


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


def scaled(folder: str, other: Path, factor: float) -> str:
    """A copy of a model whose token embeddings lie `factor` times as far apart."""
    shutil.copytree(folder, other)
    weights = load_file(other / "model.safetensors")
    weights["model.embed_tokens.weight"] *= factor
    save_file(weights, other / "model.safetensors", metadata={"format": "pt"})
    return str(other)


def test_every_run_measures_its_own_model_and_leaves_no_file_of_it(
    paths: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    cache = tmp_path / "cache"
    models = [paths["sft"], scaled(paths["sft"], tmp_path / "other", 3.0), paths["sft"]]
    told, expected = [], []
    for number, model in enumerate(models):
        extra = f"--cost_dim {NEIGHBORS} --max_steps 1 --data_output_path {cache} --actor_model_name_or_path {model}"
        run_job(Job("wpr", ppo_arguments(paths, tmp_path / f"out{number}", extra)))
        told += re.findall(r"median cost to the nearest neighbour (\S+), ", capfd.readouterr().out)
        table = load_file(Path(model) / "model.safetensors")["model.embed_tokens.weight"]
        expected.append(f"{TokenGeometry.from_embeddings(table, num_neighbors=NEIGHBORS).nearest_distance:.4g}")
    assert told == expected
    assert told[0] == told[2] != told[1]
    # the cache holds this step's prompts and nothing else
    assert [path.name.partition("_")[0] for path in cache.iterdir()] == ["ppo"]
    files = {path.name for path in (tmp_path / "out0").rglob("*") if path.is_file() and "step-1" not in path.parts}
    assert files == {"metrics.jsonl", ".lock"}

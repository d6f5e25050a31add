"""The comparison of regularizers: its grid, its measures, its arithmetic, and one small run of everything."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from compare_regularizers.main import SETTINGS, begin, grid, read_results, run_all
from compare_regularizers.runs import VARIANTS, Run, Settings
from dschat.errors import UserError
from dschat.tools.tiny_model import TinyModelSize, make_tiny_model


def test_grid_has_every_cell_once_and_no_strength_without_a_penalty() -> None:
    runs = grid(list(VARIANTS), [0.02, 0.1, 0.5], 3)

    assert len(runs) == len(set(runs)) == 3 + 4 * 3 * 3
    assert {run.strength for run in runs if run.regularizer == "none"} == {0.0}
    assert len({run.name for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)


def test_other_settings_or_missing_models_are_refused_in_one_sentence(tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), str(tmp_path / "out"), 5, 6, 16, fast=True)
    with pytest.raises(UserError, match=r"run scripts/quickstart\.sh first"):
        begin(settings)
    for name in ("sft", "reward"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    begin(settings)
    begin(settings)
    with pytest.raises(UserError, match=r"other settings \(steps\)"):
        begin(Settings(str(tmp_path), str(tmp_path / "out"), 9, 6, 16, fast=True))
    (tmp_path / "out" / "results.jsonl").write_text("{}\n{")
    with pytest.raises(UserError, match="line 2 is not JSON"):
        read_results(tmp_path / "out")


@pytest.mark.trains
def test_small_runs_are_measured_alike_and_start_from_the_same_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    # another test's process group must not be joined by the runs' own processes
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    models = tmp_path / "models"
    size = TinyModelSize(vocab_size=300, hidden_size=16, num_layers=1, num_heads=2, max_length=128)
    make_tiny_model(models / "sft", size, data_path="pydoc-tldr", cache_dir=tmp_path / "cache", seed=0)
    torch.manual_seed(0)
    scorer = AutoModelForSequenceClassification.from_pretrained(models / "sft", num_labels=1)
    scorer.score.weight.data.normal_()
    scorer.save_pretrained(models / "reward")
    AutoTokenizer.from_pretrained(models / "sft").save_pretrained(models / "reward")
    settings = Settings(str(models), str(tmp_path / "out"), steps=2, batch=4, eval_prompts=5, fast=True)
    begin(settings)
    runs = [Run("none", 0.0, 1), Run("debiased", 0.1, 2)]

    found = {line["regularizer"]: line for line in run_all(settings, runs, jobs=1)}

    assert json.loads((tmp_path / "out" / SETTINGS).read_text())["steps"] == 2
    assert set(found) == {"none", "debiased"} and all("fault" not in line for line in found.values())
    assert found["none"]["reference"] == found["debiased"]["reference"]
    for line in found.values():
        assert line["reference"]["kl"] == 0 and abs(line["reference"]["wasserstein"]) < 1e-6
        assert line["own"]["kl"] > 0 and line["common"]["kl"] > 0 and line["own"]["wasserstein"] > 0
    assert found["debiased"]["beta"] == pytest.approx(0.1 / found["debiased"]["far_cost"])
    folder = tmp_path / "out" / "runs" / runs[1].name
    trace = json.loads((folder / "answer.json").read_text())
    assert len(trace["tokens"]) == len(trace["kl"]) == len(trace["debiased"]) > 0
    assert (folder / "actor" / "config.json").is_file() and not (folder / "critic").exists()

"""The comparison of regularizers: its grid, its measures, its arithmetic, and one small run of everything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from compare_regularizers.main import SETTINGS, begin, drifted_farthest, grid, read_results, run_all
from compare_regularizers.measures import exact_kl, top_token_distance
from compare_regularizers.report import at_equal_reward, cells, draw_answer, draw_comparison, markdown, reward_level
from compare_regularizers.runs import VARIANTS, Run, Settings, penalty_scale, ppo_config
from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.errors import UserError
from dschat.optimal_transport import TokenGeometry
from dschat.tools.tiny_model import TinyModelSize, make_tiny_model


def result(name: str, strength: float, seed: int, reward: float, kl: float, **others: Any) -> dict[str, Any]:
    """A line of results.jsonl whose reference has reward 1; the distance is a tenth of the KL."""

    def point(reward: float, kl: float) -> dict[str, float]:
        return {
            "reward": reward, "kl": kl, "wasserstein": kl / 10, "top_distance": 2 - kl, "response_length": 7.0
        }  # fmt: skip

    parts = {"own": point(reward, kl), "common": point(reward, kl), "reference": point(1.0, 0.0)}
    return {"regularizer": name, "strength": strength, "seed": seed, "beta": strength, **parts, "seconds": 1, **others}


RESULTS = [
    result("none", 0.0, 1, 3.0, 2.0),
    result("none", 0.0, 2, 3.2, 2.4),
    result("kl", 0.5, 1, 2.0, 0.5),
    result("kl", 0.5, 2, 2.0, 0.7),
    result("kl", 0.1, 1, 2.5, 1.0),
    result("kl", 0.1, 2, 2.6, 1.3),
    {"regularizer": "capped", "strength": 0.1, "seed": 1, "fault": "not finite", "seconds": 1},
]


def test_grid_has_every_cell_once_and_no_strength_without_a_penalty() -> None:
    runs = grid(list(VARIANTS), [0.02, 0.1, 0.5], 3)

    assert len(runs) == len(set(runs)) == 3 + 4 * 3 * 3
    assert {run.strength for run in runs if run.regularizer == "none"} == {0.0}
    assert len({run.name for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)


@pytest.mark.parametrize("name", list(VARIANTS))
def test_every_variant_is_the_quickstarts_step_3_with_its_own_regularizer(name: str, tmp_path: Path) -> None:
    settings = Settings(str(tmp_path), str(tmp_path / "out"), 5, 6, 16, fast=False)

    config = ppo_config(settings, Run(name, 0.1, 7), tmp_path / "out")

    regularizer = config.regularizer
    assert config.runtime.seed == 7 and config.batches(1).prompts == 6
    if isinstance(regularizer, DivergenceConfig):
        assert regularizer.f_div == {"none": "none", "kl": "rkl"}[name]
    else:
        assert isinstance(regularizer, WassersteinConfig)
        assert regularizer.debias == (name == "debiased")
        published = (regularizer.epsilon, regularizer.max_iter, regularizer.top_k) == (0.01, 10, 128)
        assert (regularizer.transport == "truncated") == published == (name == "truncated")


def test_penalty_scales_are_those_of_the_closed_form_and_of_the_far_cost() -> None:
    space = TokenGeometry.from_embeddings(torch.eye(5), num_neighbors=2, far_cost=0.7)

    found = {name: penalty_scale(name, space) for name in VARIANTS}

    assert found == pytest.approx({"none": 1, "kl": 1, "truncated": 0.09, "capped": 0.7, "debiased": 0.7})


def test_exact_kl_and_top_distance_match_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    policy, reference = torch.randn(3, 11, generator=generator), torch.randn(3, 11, generator=generator)
    embeddings = torch.randn(11, 5, generator=generator)

    kl = exact_kl(policy, reference)
    spread = top_token_distance(policy, embeddings, count=4)

    for row in range(3):
        p, q = policy[row].double().softmax(0), reference[row].double().softmax(0)
        assert float(kl[row]) == pytest.approx(float(sum(p * (p / q).log())), rel=1e-6)
        top = policy[row].argsort(descending=True)[:4].tolist()
        pairs = [(embeddings[a] - embeddings[b]).norm().item() for a in top for b in top if a < b]
        assert float(spread[row]) == pytest.approx(sum(pairs) / len(pairs), rel=1e-5)


def test_cells_are_means_over_seeds_of_finished_runs() -> None:
    table = cells(RESULTS)

    assert [(cell.regularizer, cell.strength, cell.seeds) for cell in table] == [
        ("none", 0.0, 2), ("kl", 0.1, 2), ("kl", 0.5, 2)
    ]  # fmt: skip
    assert table[1].mean["reward"] == pytest.approx(2.55)
    assert table[1].deviation["kl"] == pytest.approx(0.3 / 2**0.5)


def test_equal_reward_is_read_off_straight_lines_between_runs() -> None:
    done = RESULTS[:-1]
    level = reward_level(done, 0.5)
    none, kl = at_equal_reward(done, level)

    # half of the way from 1 to 2.55, the best mean of KL
    assert level == pytest.approx(1.775)
    # from (1, 0) to (2, 0.5) and (2, 0.7)
    assert kl.seeds == 2 and kl.mean["kl"] == pytest.approx(0.775 * 0.6)
    # from (1, 0) to (3, 2) and to (3.2, 2.4)
    assert none.mean["kl"] == pytest.approx((0.775 / 2 * 2 + 0.775 / 2.2 * 2.4) / 2)
    assert all(row.seeds == 0 and not row.mean for row in at_equal_reward(done, 9.0))


def test_report_names_every_cell_and_the_run_that_broke_down(tmp_path: Path) -> None:
    text = markdown(RESULTS)
    draw_comparison(tmp_path / "a.png", RESULTS)
    trace = {"tokens": [" a$", "\n", "b_"], "kl": [0.1, -0.2, 0.3], "truncated": [1, 2, 3], "debiased": [0, 1, -1]}
    draw_answer(tmp_path / "b.png", trace, title="an answer")

    assert "| KL | 0.5 | 0.5 | 2 | 2 ± 0 |" in text
    assert "Ended early: capped 0.1, seed 1" in text
    assert drifted_farthest(RESULTS) == Run("kl", 0.1, 2)
    assert all((tmp_path / name).read_bytes().startswith(b"\x89PNG") for name in ("a.png", "b.png"))


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

"""The report on a model's embedding space, against a table whose distances are known."""

from __future__ import annotations

import math
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from dschat.optimal_transport import TokenGeometry
from dschat.tools import inspect_geometry
from toys.models import make_causal_lm

ROOT = Path(__file__).parents[2]
WORDS = ["<unk>", "kitten", "house", "tiger", "river", "mouse", "stone", "apple", "cat"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose "cat" lies beside "kitten", with padding rows that would be nearer still."""
    path = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(path)
    model = make_causal_lm("llama", vocab_size=len(WORDS) + 7)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[WORDS.index("cat")] = table[WORDS.index("kitten")] + 0.01
        table[len(WORDS) :] = table[WORDS.index("cat")]
    model.save_pretrained(path)
    return path


def table_of(folder: Path) -> Tensor:
    return load_file(folder / "model.safetensors")["model.embed_tokens.weight"]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs the published file in this process, which has imported what it needs: status, screen and complaints."""

    def run_file(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["inspect_geometry.py", *map(str, words)])
        capsys.readouterr()
        try:
            runpy.run_path(str(ROOT / "scripts" / "inspect_geometry.py"), run_name="__main__")
        except SystemExit as ended:
            return int(ended.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return run_file


@pytest.mark.parametrize("metric", ["l2", "cosine"])
@pytest.mark.parametrize("num_neighbors", [1, 5, 100])
def test_distances_match_the_geometry_that_training_builds(metric: str, num_neighbors: int) -> None:
    table = torch.randn(83, 7, generator=torch.Generator().manual_seed(3))
    points = inspect_geometry.points_of(table, metric)

    found = inspect_geometry.measure(points, num_neighbors=num_neighbors, metric=metric, sample=1000)
    space = TokenGeometry.from_embeddings(table, num_neighbors=num_neighbors, metric=metric)

    assert found.sampled == 83 and found.num_neighbors == space.num_neighbors
    assert float(found.nearest.median()) == pytest.approx(space.nearest_distance, abs=1e-5)
    torch.testing.assert_close(found.kth.float(), space.radius, atol=1e-5, rtol=1e-5)
    assert float(found.random.median()) == pytest.approx(space.far_cost, rel=0.02)  # other pairs are drawn


def test_a_sample_estimates_the_quantiles_of_all_tokens() -> None:
    points = torch.randn(3001, 5, generator=torch.Generator().manual_seed(4))

    some = inspect_geometry.measure(points, num_neighbors=20, metric="l2", sample=700)
    every = inspect_geometry.measure(points, num_neighbors=20, metric="l2", sample=5000)

    assert (some.sampled, every.sampled) == (700, 3001)
    assert float(some.nearest.median()) == pytest.approx(float(every.nearest.median()), rel=0.06)


def test_padding_rows_are_no_neighbours_and_the_nearest_token_comes_first(folder: Path, run: Run) -> None:
    status, shown, complaints = run("--model", folder, "--tokens", "cat", "--num_neighbors", 3)

    assert status == 0, complaints
    assert f"V = {len(WORDS)} tokens, D = 32" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ cat"))
    distance = 0.01 * math.sqrt(32)
    assert row.split("│")[2].split()[:2] == ["kitten", f"{distance:.3g}"]


def test_report_says_the_regime_recommends_an_epsilon_and_draws(folder: Path, tmp_path: Path, run: Run) -> None:
    picture = tmp_path / "geometry.png"
    status, shown, complaints = run("--model", folder, "--num_neighbors", 3, "--plot", picture)
    points = inspect_geometry.points_of(table_of(folder)[: len(WORDS)], "l2")
    nearest = TokenGeometry.from_embeddings(points, num_neighbors=3).nearest_distance

    assert status == 0, complaints
    assert f"epsilon = {0.2 * nearest:.3g}, that is --epsilon_unit nearest --epsilon 0.2" in shown
    assert "--transport capped --debias --cost_type L2 --cost_dim 3" in shown
    assert "inactive" in shown and "blurred" in shown
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("kernel", "word"), [(1e-9, "inactive"), (1e-5, "semantic"), (0.5, "semantic"), (0.95, "blurred")]
)
def test_regimes_agree_with_the_package(kernel: float, word: str) -> None:
    epsilon = 1 / -math.log(kernel)
    points = torch.eye(4) / math.sqrt(2)  # all at distance 1
    space = TokenGeometry.from_embeddings(points, num_neighbors=1)

    assert inspect_geometry.regime(kernel).startswith(word)
    assert word in space.describe(epsilon).lower()


def test_moving_to_a_nearer_token_costs_less_only_with_capped_transport() -> None:
    generator = torch.Generator().manual_seed(5)
    points = torch.cat([torch.randn(40, 6, generator=generator), torch.full((1, 6), 9.0), torch.full((1, 6), 9.1)])
    found = inspect_geometry.measure(points, num_neighbors=4, metric="l2", sample=100)
    order = inspect_geometry.costs_to_all(points, torch.tensor([0]), "l2")[0].argsort()
    near, far = int(order[1]), 41

    (near_published, near_capped), (far_published, far_capped) = (
        inspect_geometry.move_penalties(points, 0, other, found, "l2", epsilon=0.2 * float(found.nearest.median()))
        for other in (near, far)
    )

    assert near_published == pytest.approx(far_published, abs=1e-5) and far_published > 0
    assert 0 < near_capped < 0.8 * far_capped


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tokens", "kittn"], "did you mean kitten?"),
        (["--num_neighbors", "0"], "--num_neighbors must be at least 1"),
    ],
)
def test_mistakes_are_one_sentence(folder: Path, words: list[str], message: str, run: Run) -> None:
    status, _shown, complaints = run("--model", folder, *words)

    assert status == 2
    assert message in complaints and "Traceback" not in complaints


def test_default_tokens_are_whole_words(folder: Path) -> None:
    tokenizer = inspect_geometry.load_tokens(folder)

    chosen = inspect_geometry.word_like_tokens(tokenizer, vocab_size=len(WORDS), count=3)

    assert len(chosen) == 3
    assert {WORDS[index] for index in chosen} <= set(WORDS) - {"<unk>", "cat"}  # shorter than four letters


def test_ids_that_no_token_has_are_nobodys_neighbour(tmp_path: Path, run: Run) -> None:
    ids = {word: index if index < 3 else index + 2 for index, word in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(tmp_path)
    model = make_causal_lm("llama", vocab_size=len(WORDS) + 7)
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[ids["cat"]] = table[ids["kitten"]] + 0.01
        table[[3, 4]] = table[ids["cat"]].clone()
    model.save_pretrained(tmp_path)
    status, shown, complaints = run("--model", tmp_path, "--tokens", "cat", "--num_neighbors", 3)
    assert status == 0, complaints
    assert f"V = {len(WORDS)} tokens, D = 32" in shown
    row = next(line for line in shown.splitlines() if line.startswith("│ cat"))
    assert row.split("│")[2].split()[:2] == ["kitten", f"{0.01 * math.sqrt(32):.3g}"]

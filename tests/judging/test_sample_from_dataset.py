"""Drawing the rows that are judged."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dschat.judging.sample_from_dataset import stratified_rows, subreddit
from tests.judging.helpers import ROOT, read_rows, run_program

PROGRAM = ROOT / "evaluation" / "tools" / "sample_from_dataset.py"
PLACES = ["ask"] * 30 + ["tifu"] * 8 + ["pets"] * 2 + [None, "article"]


def write_posts(path: Path, model: str) -> Path:
    """42 rows from three subreddits, one post without and one article."""
    with path.open("w", encoding="utf-8") as file:
        for row, place in enumerate(PLACES):
            header = "ARTICLE\n" if place == "article" else "POST\n" + (f"Subreddit: r/{place}\n" if place else "")
            prompt = f"{header}text {row} \u2028 é\nTL;DR: "
            record = {"prompt": prompt, "response": f"{model} {row}", "reward": row / 7, "more": [row]}
            file.write(json.dumps(record, ensure_ascii=bool(row % 2)) + "\n")
    return path


def test_two_models_sampled_with_one_seed_align_and_records_are_unchanged(tmp_path):
    samples = []
    for model, flags in (("a", ("--filepath", "--savepath")), ("b", ("--data-path", "--save-path"))):
        path = write_posts(tmp_path / f"{model}.jsonl", model)
        sampled = tmp_path / "new" / f"{model}-sampled.jsonl"
        done = run_program(
            PROGRAM, flags[0], path, flags[1], sampled, "--dataset", "summarize", "--num_sample", 14, "--seed", 3
        )
        assert done.returncode == 0, done.stderr
        assert set(sampled.read_bytes().split(b"\n")) <= set(path.read_bytes().split(b"\n"))
        samples.append(read_rows(sampled))
    assert [row["prompt"] for row in samples[0]] == [row["prompt"] for row in samples[1]]
    places = Counter(subreddit(row["prompt"]) for row in samples[0])
    assert places == {"ask": 5, "tifu": 5, "pets": 2, "no subreddit": 1, "an article": 1}


@pytest.mark.parametrize("count", [1, 13, 14, 15, 42])
def test_every_count_is_met_without_repetition(count):
    prompts = [f"POST\nSubreddit: r/{place}\nx\nTL;DR: " if place else "POST\nx" for place in PLACES]
    rows = stratified_rows(prompts, count, seed=1)
    assert len(set(rows)) == count
    assert rows == stratified_rows(prompts, count, seed=1)
    assert count in (1, 42) or rows != stratified_rows(prompts, count, seed=2)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--num_sample", "43"], "has 42 rows, fewer than --num_sample 43"),
        (["--num_sample", "0"], "at least 1"),
        (["--dataset", "webgtp"], "did you mean webgpt"),
        (["--savepath", "{path}"], "--filepath itself"),
        (["--filepath", "nowhere.jsonl"], "there is no such file"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_is_written(tmp_path, more, message):
    path, sampled = write_posts(tmp_path / "a.jsonl", "a"), tmp_path / "sampled.jsonl"
    sampled.write_text("an earlier sample")
    before = path.read_bytes()
    given = [part.format(path=path) for part in more]
    done = run_program(PROGRAM, "--filepath", path, "--savepath", sampled, *given)
    assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1
    assert sampled.read_text() == "an earlier sample" and path.read_bytes() == before


def test_other_datasets_are_sampled_uniformly(tmp_path):
    path, sampled = write_posts(tmp_path / "a.jsonl", "a"), tmp_path / "sampled.jsonl"
    run_program(PROGRAM, "--filepath", path, "--savepath", sampled, "--dataset", "hh-rlhf", "--num_sample", 41)
    assert len({json.dumps(row) for row in read_rows(sampled)}) == 41

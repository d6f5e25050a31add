"""The inference program as users start it, on toy models."""

from __future__ import annotations

import json
import logging
import random
import time
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from dschat.answering.options import parse_options
from dschat.answering.with_rewards import run
from dschat.errors import UserError
from tests.answering.helpers import PROGRAM, default_output, make_models, words, write_posts
from tests.answering.kills import kill_at
from tests.judging.helpers import read_rows, run_program


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_models(folder)
    write_posts(folder / "posts")
    return folder


def run_here(folder: Path, *more: object) -> str:
    """The program without a new process."""
    return run(parse_options([str(word) for word in words(folder, *more)]))


def test_published_command_writes_the_published_records_and_a_closing_line(models):
    done = run_program(PROGRAM, *words(models, "--batch-size", 5))
    assert done.returncode == 0, done.stderr
    rows = read_rows(default_output(models))
    assert [set(row) for row in rows] == [{"prompt", "response", "reward"}] * 23
    assert all(row["prompt"].startswith("POST\n") and row["prompt"].endswith("\nTL;DR: ") for row in rows)
    assert len({row["response"] for row in rows}) > 15
    for words_of_line in ("23 rows", "mean reward", "95 % interval", "mean length", "tokens/s"):
        assert words_of_line in done.stdout
    mean = sum(row["reward"] for row in rows) / len(rows)
    assert f"mean reward {mean:.4f}" in done.stdout
    assert not default_output(models).with_name("run_step-7.jsonl.partial").exists()


@pytest.mark.parametrize("temperature", ["0", "1.3"])
def test_batch_size_changes_no_row(models, tmp_path, temperature):
    files = []
    for size in (1, 3, 16):
        output = tmp_path / f"{size}.jsonl"
        more = ["--batch-size", size, "--temperature", temperature, "--top-k", 0, "--top-p", 0.9, "--output", output]
        run_here(models, *more)
        files.append(read_rows(output))
    for other in files[1:]:
        assert [(row["prompt"], row["response"]) for row in other] == [
            (row["prompt"], row["response"]) for row in files[0]
        ]
        # float32 sums in another order; the stored digits end at 1e-6
        assert [row["reward"] for row in other] == pytest.approx([row["reward"] for row in files[0]], abs=1e-5)


def test_seed_changes_sampled_answers_and_nothing_else(models, tmp_path):
    for seed in (1, 2):
        run_here(models, "--seed", seed, "--output", tmp_path / f"{seed}.jsonl")
    first, second = (read_rows(tmp_path / f"{seed}.jsonl") for seed in (1, 2))
    assert [row["prompt"] for row in first] == [row["prompt"] for row in second]
    assert sum(a["response"] != b["response"] for a, b in zip(first, second, strict=True)) > 10


def test_killed_three_times_and_rerun_ends_byte_equal(models, tmp_path, caplog):
    whole, killed = tmp_path / "whole.jsonl", tmp_path / "killed.jsonl"
    common = ["--batch-size", 2, "--max-new-tokens", 40]
    run_here(models, *common, "--output", whole)
    arguments = [*common, "--output", killed]
    moments = sorted(random.Random(time.time_ns()).sample(range(1, 20), 3))
    kill_at(moments, run_here, (models, *arguments), killed)
    caplog.set_level(logging.INFO)
    run_here(models, *arguments)
    assert killed.read_bytes() == whole.read_bytes(), moments
    before = killed.stat().st_mtime_ns
    run_here(models, *arguments)
    assert "finished already" in caplog.text
    assert killed.stat().st_mtime_ns == before


@pytest.mark.parametrize("pad", ["pad", "eos"])
def test_rewards_equal_scores_row_by_row_without_padding(tmp_path, pad):
    make_models(tmp_path, pad=pad)
    write_posts(tmp_path / "posts")
    run_here(tmp_path, "--batch-size", 7)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "reward" / "step_3")
    assert (tokenizer.pad_token_id == tokenizer.eos_token_id) == (pad == "eos")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "reward" / "step_3", dtype=torch.float32)
    rows = read_rows(default_output(tmp_path))
    expected = []
    with torch.no_grad():
        for row in rows:
            answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"]
            ids = tokenizer(row["prompt"])["input_ids"] + answer
            # the toy reward model has 128 positions: longer prompts lose their beginning, behind the BOS
            ids = [ids[0], *ids[1:][-126:], tokenizer.eos_token_id]
            hidden = model.base_model(torch.tensor([ids])).last_hidden_state
            expected.append(float(model.score(hidden)[0, -1, 0]))
    assert [row["reward"] for row in rows] == pytest.approx(expected, abs=1e-5)
    assert max(expected) - min(expected) > 0.1


def test_ref_scores_hold_both_answers_of_the_dataset_and_need_no_policy(models):
    line = run_here(models, "--ref-scores", "--num-samples", 9)
    rows = read_rows(default_output(models).with_name("dataset.jsonl"))
    assert len(rows) == 9
    assert set(rows[0]) == {"prompt", "response", "reward", "rejected_response", "rejected_reward"}
    by_prompt = {}
    for text in (models / "posts" / "validation.jsonl").read_text().splitlines():
        row = json.loads(text)
        by_prompt[row["info"]["post"]] = row
    for row in rows:
        source = by_prompt[row["prompt"].split("\n")[-2]]
        assert row["response"] == source["summaries"][source["choice"]]["text"]
        assert row["rejected_response"] == source["summaries"][1 - source["choice"]]["text"]
    assert "mean rejected reward" in line


def test_long_prompts_lose_their_beginning_and_never_the_cue(models, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    run_here(models, "--max-prompt-length", 30, "--num-samples", 12, "--output", tmp_path / "out.jsonl")
    assert "cut at the front to 30 tokens" in caplog.text
    assert all(row["prompt"].endswith("TL;DR: ") for row in read_rows(tmp_path / "out.jsonl"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--dataset", "sumarize", "--data-path", ""], "did you mean summarize"),
        (["--data-path", "{models}/none"], "there is no"),
        (["--model", "{models}/run/step-8"], "there is no folder"),
        (["--model", "{models}/base"], "--no-actor-folder"),
        (["--reward-model", "{models}/base"], "no score head"),
        (["--reward-model", "nowhere/x/y"], "there is no folder"),
        (["--device", "cuda:77"], "GPUs were found"),
        (["--max-new-tokens", "500"], "leaves no room"),
        (["--top-p", "0"], "--top-p"),
        (["--max-prompt-length", "2"], "raise --max-prompt-length"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_no_result(models, tmp_path, more, message):
    output = tmp_path / "out.jsonl"
    given = [part.format(models=models) for part in more]
    arguments = [str(word) for word in words(models, *given, "--output", output)]
    if "sumarize" in given:
        at = arguments.index("--data-path")
        del arguments[at : at + 2]
        at = arguments.index("--data-path")
        del arguments[at : at + 2]
    with pytest.raises(UserError) as caught:
        run(parse_options(arguments))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not output.exists()


def test_finished_results_of_other_settings_are_not_overwritten(models, tmp_path):
    output = tmp_path / "out.jsonl"
    common = ["--num-samples", 3, "--output", output]
    run_here(models, *common)
    before = output.read_bytes()
    with pytest.raises(UserError, match="seed 1234 instead of 9"):
        run_here(models, *common, "--seed", 9)
    assert output.read_bytes() == before


def test_odd_characters_come_through_unchanged(models, tmp_path):
    odd = "caf\u00e9 \0 \U0001f642 \u2028 end"
    posts = write_posts(tmp_path / "posts", rows=4)
    file = posts / "validation.jsonl"
    row = json.loads(file.read_text().splitlines()[0])
    row["info"]["post"] = row["summaries"][0]["text"] = row["summaries"][1]["text"] = f" {odd}"
    row["summaries"][1]["text"] += "!"
    file.write_text("".join(json.dumps(row) + "\n" for _ in range(3)))
    for number, more in enumerate((["--ref-scores"], [])):
        output = tmp_path / f"{number}.jsonl"
        run_here(models, "--data-path", posts, "--output", output, "--data-output-path", tmp_path / "cache", *more)
        rows = read_rows(output)
        assert len(rows) == (3 if more else 1)  # a prompt is answered once
        assert all(odd in row["prompt"] for row in rows)
        if more:
            assert {row["response"].strip(" !") for row in rows} == {odd}

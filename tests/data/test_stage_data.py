from __future__ import annotations

import json
import logging
import multiprocessing
from dataclasses import replace
from itertools import chain

import pytest

from dschat.code_execution.long_integers import load_json
from dschat.data import stage_data
from dschat.data.stage_data import build_stage_data
from dschat.data.stages import PPO, REWARD, SFT, PPOStage, SFTStage
from dschat.errors import UserError
from tests.data.helpers import data_source, numbered_rows, write_jsonl
from tests.data.test_raw_datasets import apps, tldr
from toys.tokenizers import make_tokenizer


@pytest.fixture
def folder(tmp_path):
    """A local dataset of 100 train and 20 evaluation rows."""
    write_jsonl(tmp_path / "data" / "train.jsonl", numbered_rows(100))
    write_jsonl(tmp_path / "data" / "eval.jsonl", numbered_rows(20, start=500))
    return tmp_path / "data"


def texts(rows, column="input_ids"):
    tokenizer = make_tokenizer()
    return [tokenizer.decode(row[column], skip_special_tokens=True) for row in rows]


def question(text):
    return int(text.split("question ")[1].split("?")[0])


def build(source, stage, *, max_length=200, tokenizer=None):
    return build_stage_data(source, stage=stage, tokenizer=tokenizer or make_tokenizer(), max_length=max_length)


@pytest.fixture
def writes(monkeypatch):
    """Counts how often data is tokenised rather than read from the cache."""
    calls = []
    write = stage_data._write

    def counted(*arguments):
        calls.append(arguments[3].name)
        write(*arguments)

    monkeypatch.setattr(stage_data, "_write", counted)
    return calls


def test_steps_share_no_row_and_leave_none_out(folder, tmp_path):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    seen, seen_evaluation = [], []
    for stage, column in ((SFT, "input_ids"), (REWARD, "chosen_ids"), (PPO, "input_ids")):
        data = build(source, stage)
        seen.append([question(text) for text in texts(data.train, column)])
        seen_evaluation.append([question(text) for text in texts(data.evaluation, column)])
    assert [len(rows) for rows in seen] == [20, 40, 40]
    assert sorted(chain.from_iterable(seen)) == list(range(100))
    assert [len(rows) for rows in seen_evaluation] == [4, 8, 8]
    assert sorted(chain.from_iterable(seen_evaluation)) == list(range(500, 520))


def test_items_hold_what_the_step_needs(folder, tmp_path):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    tokenizer = make_tokenizer()
    sft, pair, prompt = (build(source, stage).train[0] for stage in (SFT, REWARD, PPO))
    assert set(sft) == {"input_ids", "prompt_length"}
    assert set(pair) == {"chosen_ids", "rejected_ids"}
    assert set(prompt) == {"input_ids", "record"}
    number = question(tokenizer.decode(pair["chosen_ids"]))
    start = len(tokenizer(f" Human: question {number}? Assistant:")["input_ids"])
    assert tokenizer.decode(pair["chosen_ids"][:start]) == f"<bos> Human: question {number}? Assistant:"
    assert tokenizer.decode(pair["chosen_ids"][start:]) == f" good answer {number}<eos>"
    assert tokenizer.decode(pair["rejected_ids"][start:]) == f" bad {number}<eos>"
    record = json.loads(prompt["record"])
    assert record["prompt"] == tokenizer.decode(prompt["input_ids"], skip_special_tokens=True)
    assert record["chosen"] == f" good answer {question(record['prompt'])}"


def test_same_call_reads_the_cache(folder, tmp_path, writes):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    first, second = build(source, SFT), build(source, SFT)
    assert writes == ["sft"]
    assert [dict(row) for row in first.train] == [dict(row) for row in second.train]
    assert first.report == second.report


def change_data(folder, source):
    rows = numbered_rows(100)
    rows[0]["chosen"] = "another answer"
    write_jsonl(folder / "train.jsonl", rows)
    return source, {}


CHANGES = {
    "end token": lambda folder, source: (replace(source, end_of_conversation="<pad>"), {}),
    "limit": lambda folder, source: (source, {"max_length": 201}),
    "seed": lambda folder, source: (replace(source, seed=1), {}),
    "split": lambda folder, source: (replace(source, data_split="3,4,4"), {}),
    "grouping": lambda folder, source: (replace(source, split_by="group"), {}),
    "format": lambda folder, source: (replace(source, data_format="Dahoas/rm-static"), {}),
    "tokenizer": lambda folder, source: (source, {"tokenizer": make_tokenizer(bos=False)}),
    "data": change_data,
}


@pytest.mark.parametrize("change", CHANGES)
def test_anything_that_shapes_the_data_misses_the_cache(folder, tmp_path, writes, change):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    build(source, SFT)
    changed, settings = CHANGES[change](folder, source)
    build(changed, SFT, **settings)
    assert writes == ["sft", "sft"]


def test_what_does_not_shape_the_data_hits_the_cache(folder, tmp_path, writes):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    build(source, SFT)
    moved = folder.rename(tmp_path / "moved")
    build(replace(source, data_path=(str(moved),)), SFT)
    assert writes == ["sft"]


def test_damaged_cache_is_built_again(folder, tmp_path, writes, caplog):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    whole = [dict(row) for row in build(source, REWARD).train]
    (arrow,) = (tmp_path / "cache").glob("reward_*/train/*.arrow")
    content = arrow.read_bytes()
    arrow.write_bytes(content[: len(content) // 2])
    with caplog.at_level(logging.WARNING):
        again = build(source, REWARD)
    assert writes == ["reward", "reward"]
    assert [dict(row) for row in again.train] == whole
    assert "damaged" in caplog.text


def test_the_key_of_a_runs_rows_is_their_content_and_not_the_code_that_made_them(folder, tmp_path, monkeypatch, writes):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    key = build(source, REWARD).key
    monkeypatch.setattr(stage_data, "code_key", lambda: "of another version")
    assert build(source, REWARD).key == key
    assert writes == ["reward", "reward"]
    assert build(replace(source, seed=1), REWARD).key != key
    assert build(source, REWARD, tokenizer=make_tokenizer(bos=False)).key != key
    assert build(source, SFT).key != key


def ids_of(source):
    data = build(source, SFT)
    return [row["input_ids"] for row in data.train]


def test_processes_that_build_at_once_agree(folder, tmp_path):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    with multiprocessing.get_context("fork").Pool(3) as pool:
        answers = pool.map(ids_of, [source] * 3, chunksize=1)
    assert len(answers[0]) == 20
    assert answers[0] == answers[1] == answers[2]
    assert len(list((tmp_path / "cache").iterdir())) == 1


def test_cache_holds_no_pickle(folder, tmp_path):
    build(data_source(folder, cache_dir=tmp_path / "cache"), PPO)
    suffixes = {path.suffix for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    assert suffixes == {".arrow", ".json"}


def test_several_datasets_are_put_together_and_permuted(folder, tmp_path):
    other = write_jsonl(tmp_path / "more.jsonl", numbered_rows(100, start=1_000))
    source = data_source(folder, other, cache_dir=tmp_path / "cache")
    numbers = [question(text) for text in texts(build(source, SFT).train)]
    alone = {question(text) for text in texts(build(replace(source, data_path=(str(folder),)), SFT).train)}
    assert len(numbers) == len(set(numbers)) == 20 + 18  # of the other file 10 of 100 rows are carved for evaluation
    assert {number for number in numbers if number < 1_000} == alone
    kinds = [number < 1_000 for number in numbers]
    assert kinds != sorted(kinds) and kinds != sorted(kinds, reverse=True)


def test_data_of_one_stage_alone_is_used_whole_and_there_alone(folder, tmp_path):
    write_jsonl(tmp_path / "more" / "train.jsonl", numbered_rows(30, start=1_000))
    write_jsonl(tmp_path / "more" / "eval.jsonl", numbered_rows(5, start=2_000))
    source = data_source(folder, cache_dir=tmp_path / "cache")
    sft, ppo = build(source, SFTStage(more_paths=(str(tmp_path / "more"),))), build(source, PPO)
    assert {question(text) for text in texts(sft.train)} >= set(range(1_000, 1_030))
    assert (len(sft.train), len(sft.evaluation)) == (20 + 30, 4 + 5)
    assert (len(ppo.train), len(ppo.evaluation)) == (40, 8)


def test_evaluation_too_small_to_divide_is_used_whole(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", numbered_rows(12))
    data = build(data_source(path, cache_dir=tmp_path / "cache"), SFT)
    assert len(data.evaluation) == 1


@pytest.mark.parametrize("split_by", ["row", "group"])
def test_group_split_keeps_the_pairs_of_a_post_in_one_step(tmp_path, split_by):
    rows = [tldr({"post": f"post {number // 5}"}, choice=number % 2) for number in range(100)]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "validation.jsonl", rows)
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", split_by=split_by)
    posts = []
    for stage, column in ((SFT, "input_ids"), (REWARD, "chosen_ids"), (PPO, "input_ids")):
        posts.append({text.split("TL;DR")[0] for text in texts(build(source, stage).train, column)})
    shared = (posts[0] & posts[1]) | (posts[0] & posts[2]) | (posts[1] & posts[2])
    assert bool(shared) == (split_by == "row")
    assert len(set.union(*posts)) == 20


def test_apps_problems_stay_in_one_step_and_sft_sees_every_solution(tmp_path):
    rows = [
        apps(question=f"Problem {number}.", solutions=json.dumps([f"a{number}", f"b{number}", f"c{number}"]))
        for number in range(10)
    ]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "test.jsonl", rows[:2])
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="2,0,8")
    sft, ppo = build(source, SFT), build(source, PPO)
    assert (len(sft.train), len(ppo.train)) == (2 * 3, 8)
    problems = [{text.split("\n")[1] for text in texts(data.train)} for data in (sft, ppo)]
    assert not problems[0] & problems[1]
    assert (len(problems[0]), len(problems[1])) == (2, 8)
    assert json.loads(ppo.train[0]["record"])["input_output"]["inputs"] == ["1 2\n"]


def test_problems_with_numbers_beyond_python_s_limit_of_digits_keep_their_tests(tmp_path):
    long = "9" * 5_000
    tests = f'{{"inputs": [[{long}]], "outputs": [{long}], "fn_name": "f"}}'
    rows = [apps(question=f"Problem {number}.", input_output=tests) for number in range(2)]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "test.jsonl", rows[:1])
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="0,0,1")
    record = load_json(build(source, PPOStage(needs_tests=True)).train[0]["record"])
    assert record["input_output"] == {"inputs": [[10**5_000 - 1]], "outputs": [10**5_000 - 1], "fn_name": "f"}


def test_ppo_on_tests_leaves_out_and_counts_problems_without_any(tmp_path):
    broken = ["", "{}", '{"inputs": []', json.dumps({"inputs": ["1"], "outputs": []}), json.dumps({"inputs": ["1"]})]
    tests = [json.dumps({"inputs": ["1"], "outputs": ["2"]}), *broken]
    rows = [apps(question=f"Problem {number}.", input_output=text) for number, text in enumerate(tests * 2)]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "test.jsonl", rows[:2])
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="0,0,1")
    assert len(build(source, PPO).train) == 12
    data = build(source, PPOStage(needs_tests=True))
    assert sorted(text.split("\n")[1] for text in texts(data.train)) == ["Problem 0.", "Problem 6."]
    assert data.report.summary() == (
        "Data for ppo: 2 of 12 training rows are used (left out: 10 without usable tests); 1 of 2 evaluation rows are "
        "used (left out: 1 without usable tests)."
    )


def test_report_counts_every_row_and_says_so(tmp_path):
    rows = [
        {"prompt": "Human: a? Assistant:", "chosen": "yes", "rejected": "no"},
        {"prompt": "Human: b? Assistant:", "chosen": "same", "rejected": "same"},
        {"prompt": "  ", "chosen": "yes", "rejected": "no"},
        {"prompt": "Human: c? Assistant:", "chosen": "", "rejected": "no"},
        {"prompt": "Human: " + "long " * 90 + "? Assistant:", "chosen": "yes", "rejected": "no"},
        {"prompt": "Human: d? Assistant:", "chosen": "long " * 90, "rejected": "no"},
    ]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows[:1])
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="0,1,0")
    report = build(source, REWARD, max_length=60).report
    train = report.train
    assert (train.rows, train.kept, train.shortened_prompts) == (6, 2, 1)
    assert (train.empty_prompts, train.empty_responses, train.equal_pairs, train.too_long) == (1, 1, 1, 1)
    assert sum(train.dropped().values()) == train.rows - train.kept
    assert report.summary() == (
        "Data for reward: 2 of 6 training rows are used (left out: 1 without a prompt, 1 without a response, "
        "1 with two equal responses, 1 too long to shorten); 1 of 1 evaluation rows are used. Prompts cut at the "
        f"front to fit 60 tokens with their responses: 1 and 0, the longest had {train.longest_prompt} tokens."
    )


def test_repeated_prompts_are_counted_in_ppo(tmp_path):
    write_jsonl(tmp_path / "data" / "train.jsonl", [{"prompt": f"p{number % 3}"} for number in range(10)])
    write_jsonl(tmp_path / "data" / "eval.jsonl", [{"prompt": "p"}])
    source = data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="0,0,1")
    report = build(source, PPO).report
    assert (report.train.kept, report.train.repeated_prompts, report.evaluation.repeated_prompts) == (10, 7, 0)
    assert "7 training prompts repeat an earlier one" in report.summary()


def test_prompts_that_all_exceed_the_limit_are_an_error_with_the_longest(folder, tmp_path):
    source = data_source(folder, cache_dir=tmp_path / "cache")
    longest = max(len(row["input_ids"]) for row in build(source, PPO).train)
    with pytest.raises(UserError) as caught:
        build(source, PPO, max_length=12)
    assert f"0 of 40 prompts fit --max_prompt_seq_len 12; the longest has {longest} tokens" in str(caught.value)


def test_one_prompt_that_fits_is_enough(tmp_path):
    rows = [{"prompt": "long " * 30 + "Assistant:"}] * 9 + [{"prompt": "p Assistant:"}]
    write_jsonl(tmp_path / "data" / "train.jsonl", rows)
    write_jsonl(tmp_path / "data" / "eval.jsonl", rows[:1])
    data = build(data_source(tmp_path / "data", cache_dir=tmp_path / "cache", data_split="0,0,1"), PPO, max_length=30)
    assert (data.report.train.kept, data.report.train.shortened_prompts) == (10, 9)
    assert max(len(row["input_ids"]) for row in data.train) == 30


@pytest.mark.parametrize(("stage", "max_length", "flag"), [(SFT, 10, "--max_seq_len"), (REWARD, 10, "--max_seq_len")])
def test_data_of_which_nothing_is_left_is_an_error(folder, tmp_path, stage, max_length, flag):
    with pytest.raises(UserError, match=r"no training row of .* is usable for") as caught:
        build(data_source(folder, cache_dir=tmp_path / "cache"), stage, max_length=max_length)
    assert f"too long to shorten); mend the data or raise {flag} (now 10)" in str(caught.value)
    assert not list((tmp_path / "cache").glob("*"))


def test_dataset_without_pairs_cannot_train_a_reward_model(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"p{number}", "label": "a"} for number in range(20)])
    with pytest.raises(UserError, match=r"no training row of .* is usable for reward: .*without a response"):
        build(data_source(path, cache_dir=tmp_path / "cache"), REWARD)


def test_split_that_leaves_a_step_nothing_is_an_error(folder, tmp_path):
    source = data_source(folder, cache_dir=tmp_path / "cache", data_split="10,0,0")
    with pytest.raises(UserError, match=r'--data_split "10,0,0" leaves no row of .* for reward'):
        build(source, REWARD)


def test_split_is_checked_before_any_data_is_read(tmp_path):
    source = data_source("/nowhere", cache_dir=tmp_path / "cache", data_split="1,1")
    with pytest.raises(UserError, match="this is step 3"):
        build(source, PPO)


def test_no_data_path_is_an_error(tmp_path):
    with pytest.raises(UserError, match="--data_path is empty"):
        build(data_source(cache_dir=tmp_path / "cache"), SFT)


def test_malformed_line_is_reported_from_here_too(folder, tmp_path):
    with (folder / "train.jsonl").open("a") as file:
        file.write("{broken\n")
    with pytest.raises(UserError, match=r"train\.jsonl:101: not JSON"):
        build(data_source(folder, cache_dir=tmp_path / "cache"), SFT)


def test_unreadable_rows_are_left_out_and_counted(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", numbered_rows(20))
    path.write_text(path.read_text() + "broken\n" + '{"prompt": "p", "chosen": null, "rejected": "r"}\n')
    with pytest.raises(UserError, match=r"rows\.jsonl:22.*--skip_bad_rows 1 is used up"):
        build(data_source(path, cache_dir=tmp_path / "cache", skip_bad_rows=1), REWARD)
    counts = build(data_source(path, cache_dir=tmp_path / "cache", skip_bad_rows=2), REWARD).report.train
    assert counts.unreadable == 2
    assert counts.rows == counts.kept + 2
    assert counts.dropped() == {"unreadable": 2}

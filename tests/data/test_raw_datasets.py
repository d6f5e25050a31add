"""Each dataset in the schema of its hub repository, read through a local folder."""

from __future__ import annotations

import json
import logging

import pytest
from datasets import Dataset, DatasetDict

from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.stages import PPO, REWARD, SFT
from dschat.errors import UserError
from tests.data.helpers import write_jsonl, write_parquet


def qa(prompt, chosen, rejected):
    return {"prompt": prompt, "response": chosen, "chosen": chosen, "rejected": rejected}


def passages(*texts):
    return [{"docid": str(number), "title": "t", "text": text} for number, text in enumerate(texts)]


def tldr(info, choice=0):
    empty = {"id": "t3_1", "post": None, "title": "T", "subreddit": None, "site": None, "article": None}
    summaries = [{"text": " first", "policy": "ref", "note": None}, {"text": " second", "policy": "sup", "note": None}]
    extra = {"confidence": None}
    return {
        "info": empty | info,
        "summaries": summaries,
        "choice": choice,
        "worker": "w",
        "batch": "b",
        "split": "train",
        "extra": extra,
    }


def webgpt(answer_0, answer_1, score_0, score_1):
    return {
        "question": {"dataset": "eli5", "id": "1", "full_text": "Why is the sky blue?"},
        "quotes_0": {"title": ["t"], "extract": ["e"]},
        "answer_0": answer_0,
        "tokens_0": {"prefix": [1], "completion": [2]},
        "score_0": score_0,
        "quotes_1": {"title": ["t"], "extract": ["e"]},
        "answer_1": answer_1,
        "tokens_1": {"prefix": [1], "completion": [2]},
        "score_1": score_1,
    }


def shp(labels):
    return {
        "post_id": "p1",
        "domain": "askcarguys_train",
        "history": "My car?",
        "human_ref_A": "A!",
        "human_ref_B": "B!",
        "labels": labels,
        "score_ratio": 2.0,
    }


def apps(**changes):
    row = {
        "problem_id": 0,
        "question": "Add two numbers.",
        "solutions": json.dumps(["print(1)", "print(null)"]),
        "input_output": json.dumps({"inputs": ["1 2\n"], "outputs": ["3\n"]}),
        "difficulty": "introductory",
        "url": "https://example.org",
        "starter_code": "def add(a, b):",
    }
    return row | changes


APPS_PROMPT = (
    "### Problem:\nAdd two numbers.\n\n### Starter code:\ndef add(a, b):\n\n### Tests:\n"
    "They run the program on standard input and read what it prints.\n\n### Response:\n"
)


HUMAN = " Human: {} Assistant:".format


CASES = {
    "Dahoas/rm-static": (
        qa("\n\nHuman: Hi\n\nAssistant:", " Hello.", " No."),
        ("\n\nHuman: Hi\n\nAssistant:", " Hello.", " No."),
    ),
    "Dahoas/full-hh-rlhf": (
        qa("\n\nHuman: Hi\n\nAssistant:", "Hello.", "No."),
        ("\n\nHuman: Hi\n\nAssistant:", "Hello.", "No."),
    ),
    "Dahoas/synthetic-instruct-gptj-pairwise": (qa("Sum?", "3", "4"), (HUMAN("Sum?"), " 3", " 4")),
    "yitingxie/rlhf-reward-datasets": (
        qa("\n\nHuman: Hi ", "Assistant: Yes.", "Assistant: Once. Assistant: No."),
        ("\n\nHuman: Hi Assistant:", " Yes.", " No."),
    ),
    "openai/webgpt_comparisons": (
        webgpt("Light [1] scatters (mostly blue)[2, 3].", "No [sic] idea[12].", -0.5, 0.5),
        (HUMAN("Why is the sky blue?"), " No [sic] idea.", " Light scatters (mostly blue)."),
    ),
    "stanfordnlp/SHP": (shp(1), (HUMAN("My car?"), " A!", " B!")),
    "pvduy/sharegpt_alpaca_oa_vicuna_format": (
        {"prompt": "USER: Hi ASSISTANT:", "label": "Hello."},
        ("Human: Hi Assistant:", " Hello.", None),
    ),
    "wangrui6/Zhihu-KOL": (
        {"INSTRUCTION": "天空为什么是蓝的?", "RESPONSE": "散射。", "SOURCE": "Zhihu", "METADATA": "{}"},
        (HUMAN("天空为什么是蓝的?"), " 散射。", None),
    ),
    "Cohere/miracl-zh-queries-22-12": (
        {
            "query_id": "1",
            "query": "谁?",
            "positive_passages": passages("他", "她"),
            "negative_passages": passages("不"),
        },
        (HUMAN("谁?"), " 他", " 不"),
    ),
    "Cohere/miracl-ja-queries-22-12": (
        {
            "query_id": "1",
            "query": "誰?",
            "positive_passages": passages("彼"),
            "negative_passages": passages("否", "非"),
        },
        (HUMAN("誰?"), " 彼", " 否"),
    ),
    "Hello-SimpleAI/HC3-Chinese": (
        {"id": "0", "question": "你好吗?", "human_answers": ["好", "不好"], "chatgpt_answers": ["我是模型"]},
        (HUMAN("你好吗?"), " 好", None),
    ),
    "mkqa-Chinese": (
        {
            "query": "who",
            "queries": {"en": "who", "zh_cn": "谁", "ja": "誰"},
            "answers": {lang: [{"type": 1, "text": f"{lang}!", "aliases": []}] for lang in ("en", "zh_cn", "ja")},
        },
        (HUMAN("谁"), " zh_cn!", None),
    ),
    "mkqa-Japanese": (
        {
            "query": "who",
            "queries": {"en": "who", "zh_cn": "谁", "ja": "誰"},
            "answers": {lang: [{"type": 1, "text": f"{lang}!", "aliases": []}] for lang in ("en", "zh_cn", "ja")},
        },
        (HUMAN("誰"), " ja!", None),
    ),
    "lmqg/qg_jaquad": (
        {"answer": "青", "question": "空の色は?", "sentence": "空は青い。", "paragraph": "空は青い。海も。"},
        (HUMAN("空の色は?"), " 空は青い。", None),
    ),
    "lmqg/qag_jaquad": (
        {"answers": ["青"], "questions": ["空の色は?", "海は?"], "paragraph": "空は青い。海も。"},
        (HUMAN("空の色は?"), " 空は青い。海も。", None),
    ),
    "openai/summarize_from_feedback": (
        tldr({"post": "I wrote tests.\nThey pass.", "subreddit": "python"}, choice=1),
        ("POST\nSubreddit: r/python\nI wrote tests.\nThey pass.\nTL;DR: ", " second", " first"),
    ),
    "codeparrot/apps": (apps(), (APPS_PROMPT, "print(1)", None)),
    "tiny-apps": (apps(), (APPS_PROMPT, "print(1)", None)),
    "local/jsonfile": (qa("Human: Hi Assistant:", "Hello.", "No."), (" Human: Hi Assistant:", " Hello.", " No.")),
    "pydoc-tldr": (
        tldr({"post": "Body.", "subreddit": "heapq"}),
        ("POST\nSubreddit: r/heapq\nBody.\nTL;DR: ", " first", " second"),
    ),
}


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", CASES)
def test_dataset_reads_its_schema_from_a_local_folder(tmp_path, name, suffix):
    row, (prompt, chosen, rejected) = CASES[name]
    write = write_jsonl if suffix == "jsonl" else write_parquet
    write(tmp_path / "mine" / f"train.{suffix}", [row] * 3)
    write(tmp_path / "mine" / f"validation.{suffix}", [row])
    raw = find_raw_dataset(str(tmp_path / "mine"), data_format=name, seed=1, cache_dir=tmp_path / "cache")
    splits = raw.load()
    assert (len(splits.train), len(splits.evaluation)) == (3, 1)
    for read in (splits.train[0], splits.evaluation[0]):
        assert (raw.prompt(read), raw.chosen(read), raw.rejected(read)) == (prompt, chosen, rejected)
        record = raw.record(read)
        assert (record["prompt"], record["chosen"]) == (prompt, chosen)
        assert json.loads(json.dumps(record)) == record
        assert raw.group(read)
    assert raw.hub_name == name


@pytest.mark.parametrize("name", CASES)
def test_prompt_ends_in_the_cue_of_its_dataset(tmp_path, name):
    row, (prompt, _, _) = CASES[name]
    path = write_jsonl(tmp_path / "train.jsonl", [row] * 2)
    cue = find_raw_dataset(str(path), data_format=name, seed=1, cache_dir=tmp_path).cue(prompt)
    assert cue.strip() in ("Assistant:", "TL;DR:", "### Response:")
    assert prompt.endswith(cue)


def raw_of(tmp_path, name, rows, **settings):
    path = write_jsonl(tmp_path / "train.jsonl", rows)
    raw = find_raw_dataset(str(path), data_format=name, seed=1, cache_dir=tmp_path / "cache", **settings)
    return raw, raw.load()


@pytest.mark.parametrize(
    ("info", "prompt"),
    [
        ({"post": "Body"}, "POST\nBody\nTL;DR: "),
        ({"post": "", "subreddit": "x"}, "POST\nSubreddit: r/x\n\nTL;DR: "),
        ({"article": "News"}, "ARTICLE\nNews\nTL;DR: "),
        ({"article": "News", "subreddit": "y"}, "ARTICLE\nSubreddit: r/y\nNews\nTL;DR: "),
        ({}, None),
    ],
)
def test_tldr_prompt_of_posts_articles_and_neither(tmp_path, info, prompt):
    raw, splits = raw_of(tmp_path, "openai/summarize_from_feedback", [tldr(info), tldr({"post": "other"})])
    prompts = {raw.prompt(row) for split in (splits.train, splits.evaluation) for row in split}
    assert prompts == {prompt, "POST\nother\nTL;DR: "}


def test_tldr_row_without_two_summaries_or_a_valid_choice_has_no_answers(tmp_path):
    short = tldr({"post": "a"}) | {"summaries": [{"text": " only", "policy": "p", "note": None}]}
    raw, splits = raw_of(tmp_path, "openai/summarize_from_feedback", [short, tldr({"post": "b"}, choice=2)] * 2)
    answers = [(raw.chosen(row), raw.rejected(row)) for row in splits.train]
    assert answers == [(None, None)] * 3


def test_webgpt_tie_is_no_pair_but_still_a_prompt_with_an_answer(tmp_path):
    raw, splits = raw_of(tmp_path, "openai/webgpt_comparisons", [webgpt("one", "two", 0.0, 0.0)] * 2)
    row = splits.train[0]
    assert (raw.chosen(row), raw.rejected(row)) == (" one", None)
    assert raw.prompt(row) == HUMAN("Why is the sky blue?")


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("Yes [1].", "Yes."),
        ("Yes[1][2, 3] (see below) [a note].", "Yes (see below) [a note]."),
        ("f(x) [1-3] = [0, 1)", "f(x) = [0, 1)"),
        ("(a [4]) b", "(a) b"),
    ],
)
def test_webgpt_removes_citations_only(tmp_path, text, clean):
    raw, splits = raw_of(tmp_path, "openai/webgpt_comparisons", [webgpt(text, "other", 1.0, 0.0)] * 2)
    assert raw.chosen(splits.train[0]) == f" {clean}"


def test_shp_prefers_comment_b_unless_the_label_is_one(tmp_path):
    raw, splits = raw_of(tmp_path, "stanfordnlp/SHP", [shp(0)] * 2)
    row = splits.train[0]
    assert (raw.chosen(row), raw.rejected(row), raw.group(row)) == (" B!", " A!", "p1")


@pytest.mark.parametrize("language", ["zh", "ja"])
def test_miracl_query_without_an_irrelevant_passage_is_no_pair(tmp_path, language):
    full = {"query": "q", "positive_passages": passages("yes"), "negative_passages": passages("no")}
    rows = [full, full | {"negative_passages": []}]
    raw, splits = raw_of(tmp_path, f"Cohere/miracl-{language}-queries-22-12", rows)
    rejected = {raw.rejected(row) for split in (splits.train, splits.evaluation) for row in split}
    assert rejected == {" no", None}


def test_jsonfile_record_keeps_the_other_columns(tmp_path):
    raw, splits = raw_of(tmp_path, "local/jsonfile", [qa("p", "c", "r") | {"answer": 42}] * 2)
    record = raw.record(splits.train[0])
    assert (record["answer"], record["rejected"], record["prompt"], record["chosen"]) == (42, "r", " p", " c")


@pytest.mark.parametrize(
    ("stage", "row", "column"),
    [
        (REWARD, {"prompt": "p", "chosen": "c"}, "rejected"),
        (SFT, {"prompt": "p", "rejected": "r"}, "chosen"),
        (PPO, {"question": "p", "chosen": "c"}, "prompt"),
    ],
)
@pytest.mark.parametrize("write", [write_jsonl, write_parquet])
def test_missing_column_is_named_beside_those_found(tmp_path, stage, row, column, write):
    path = write(tmp_path / f"rows.{'jsonl' if write is write_jsonl else 'parquet'}", [row] * 3)
    raw = find_raw_dataset(str(path), data_format="local/jsonfile", seed=1, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError) as caught:
        raw.load(stage.texts)
    assert f"dataset {path} lacks column '{column}'; found: {', '.join(row)}" in str(caught.value)


def test_missing_field_of_a_struct_is_named_by_its_path(tmp_path):
    row = tldr({"post": "a"}) | {"info": {"body": "a"}}
    path = write_jsonl(tmp_path / "rows.jsonl", [row] * 3)
    raw = find_raw_dataset(
        str(path), data_format="openai/summarize_from_feedback", seed=1, cache_dir=tmp_path / "cache"
    )
    with pytest.raises(UserError, match=r"lacks column 'info\.post'; found: info, summaries"):
        raw.load(PPO.texts)


@pytest.mark.parametrize("stage", [SFT, PPO])
def test_columns_of_other_steps_need_not_be_there(tmp_path, stage):
    raw, _ = raw_of(tmp_path, "local/jsonfile", [{"prompt": "p", "chosen": "c"}] * 2)
    assert len(raw.load(stage.texts).train) == 1


def test_prompts_alone_are_enough_for_ppo_and_have_no_chosen_answer(tmp_path):
    raw, splits = raw_of(tmp_path, "local/jsonfile", [{"prompt": "p"}] * 2)
    assert raw.record(splits.train[0]) == {"prompt": " p", "chosen": None}


def test_column_of_another_type_is_refused(tmp_path):
    path = write_parquet(tmp_path / "rows.parquet", [{"prompt": 1, "chosen": "c"}] * 3)
    raw = find_raw_dataset(str(path), data_format="local/jsonfile", seed=1, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError, match="column 'prompt' of type int64 where text is needed"):
        raw.load(SFT.texts)


def test_null_is_refused_in_the_step_that_needs_the_text_and_allowed_in_others(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [qa("p", "c", "r"), qa("q", "d", None)])
    raw = find_raw_dataset(str(path), seed=1, cache_dir=tmp_path / "cache")
    assert len(raw.load(SFT.texts).train) == 1
    with pytest.raises(UserError, match=r"rows\.jsonl:2: field 'rejected' is null where text is needed"):
        raw.load(REWARD.texts)


def test_split_without_evaluation_is_carved_nine_to_one_and_seeded(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": f"p{number}"} for number in range(100)])
    cut = [
        find_raw_dataset(str(path), seed=seed, cache_dir=tmp_path / "cache").load().evaluation["prompt"]
        for seed in (1, 1, 2)
    ]
    assert [len(prompts) for prompts in cut] == [10, 10, 10]
    assert list(cut[0]) == list(cut[1])
    assert set(cut[0]) != set(cut[2])


def test_carving_by_group_keeps_a_post_on_one_side(tmp_path):
    rows = [tldr({"post": f"post {number // 4}"}) for number in range(80)]
    raw, splits = raw_of(tmp_path, "openai/summarize_from_feedback", rows, split_by="group")
    train, evaluation = ({raw.prompt(row) for row in split} for split in (splits.train, splits.evaluation))
    assert not train & evaluation
    assert len(splits.evaluation) == 8


def test_two_rows_are_enough_to_carve_and_one_is_not(tmp_path):
    _, splits = raw_of(tmp_path, "local/jsonfile", [{"prompt": "p"}] * 2)
    assert (len(splits.train), len(splits.evaluation)) == (1, 1)
    with pytest.raises(UserError, match="one row and no evaluation split"):
        raw_of(tmp_path, "local/jsonfile", [{"prompt": "p"}])


def test_empty_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no row"):
        raw_of(tmp_path, "local/jsonfile", [])


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_an_empty_evaluation_file_is_named_with_the_way_on(tmp_path, suffix):
    write_jsonl(tmp_path / "train.jsonl", [qa("p", "c", "r")] * 3)
    write_jsonl(tmp_path / f"test.{suffix}", [])
    raw = find_raw_dataset(str(tmp_path), seed=1, cache_dir=tmp_path / "cache")
    with pytest.raises(UserError) as caught:
        raw.load()
    assert str(caught.value).startswith(f"{tmp_path}/test.{suffix} has no row; add rows, or remove it")


def test_a_split_without_rows_in_a_saved_folder_is_told(tmp_path):
    rows = Dataset.from_list([qa("p", "c", "r")] * 3)
    DatasetDict({"train": rows, "test": rows.select([])}).save_to_disk(str(tmp_path / "saved"))
    with pytest.raises(UserError, match=f"{tmp_path}/saved holds a split without a row; save it again with rows or"):
        find_raw_dataset(str(tmp_path / "saved"), seed=1, cache_dir=tmp_path / "cache").load()


def test_splits_that_are_not_used_are_named_in_the_log(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    for name, count in (("train", 5), ("validation", 2), ("test", 3)):
        write_jsonl(tmp_path / f"{name}.jsonl", [qa("p", "c", "r")] * count)
    splits = find_raw_dataset(str(tmp_path), seed=1, cache_dir=tmp_path / "cache").load()
    assert len(splits.evaluation) == 2
    unused = f"{tmp_path}/test.jsonl (3 rows) is not used: evaluation is on {tmp_path}/validation.jsonl"
    assert unused in caplog.text


def test_two_saved_splits_of_one_meaning_are_named_in_the_log(tmp_path, caplog):
    rows = Dataset.from_list([qa("p", "c", "r")] * 3)
    DatasetDict({"train": rows, "dev": rows, "valid": rows.select([0])}).save_to_disk(str(tmp_path / "saved"))
    splits = find_raw_dataset(str(tmp_path / "saved"), seed=1, cache_dir=tmp_path / "cache").load()
    assert len(splits.evaluation) == 3
    assert "the split valid with 1 rows is not used, as another is the validation split" in caplog.text


def test_a_column_of_another_name_is_named_with_the_renaming(tmp_path):
    path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": "p", "response": "c"}] * 3)
    with pytest.raises(UserError, match=r"lacks column 'chosen'; found: prompt, response; rename response to chosen; "):
        find_raw_dataset(str(path), seed=1, cache_dir=tmp_path / "cache").load(SFT.texts)
    path = write_jsonl(tmp_path / "pairs.jsonl", [{"question": "p", "answer": "c"}] * 3)
    with pytest.raises(UserError, match=r"rename question to prompt and answer to chosen; use the columns prompt"):
        find_raw_dataset(str(path), seed=1, cache_dir=tmp_path / "cache")


def test_fingerprint_follows_the_content_of_the_files(tmp_path):
    keys = []
    for text in ("a", "b", "a"):
        path = write_jsonl(tmp_path / "rows.jsonl", [{"prompt": text}] * 2)
        keys.append(find_raw_dataset(str(path), seed=1, cache_dir=tmp_path / "cache").fingerprint())
    assert keys[0] == keys[2] != keys[1]


def test_saved_folders_are_read(tmp_path):
    rows = Dataset.from_list([qa("p", "c", "r")] * 4)
    rows.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": rows, "test": rows.select([0])}).save_to_disk(str(tmp_path / "two"))
    sizes = []
    for name in ("one", "two"):
        raw = find_raw_dataset(str(tmp_path / name), seed=1, cache_dir=tmp_path / "cache")
        splits = raw.load(REWARD.texts)
        sizes.append((len(splits.train), len(splits.evaluation), raw.hub_name))
    assert sizes == [(3, 1, "local/jsonfile"), (4, 1, "local/jsonfile")]

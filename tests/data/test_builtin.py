from __future__ import annotations

import re
import time
from collections import Counter

import pytest

from dschat.data import builtin
from dschat.data.builtin import BuiltinSource, Summarised, build_rows, collect_docstrings
from dschat.data.raw_datasets import find_raw_dataset
from dschat.data.stages import REWARD, SFT
from dschat.errors import UserError

ITEMS = [
    Summarised(module=f"pkg{number % 7}.mod", post=f"The long text number {number}.", summary=f"Return item {number}.")
    for number in range(60)
]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The dataset as a user gets it, and the seconds it took."""
    started = time.monotonic()
    raw = find_raw_dataset("pydoc-tldr", seed=1234, cache_dir=tmp_path_factory.mktemp("cache"))
    return raw, raw.load(REWARD.texts), time.monotonic() - started


def test_there_are_enough_pairs_soon_enough(built):
    _, splits, seconds = built
    assert len(splits.train) + len(splits.evaluation) >= 2_400
    assert len(splits.evaluation) >= 200
    assert seconds < 60  # about 4 on an idle core


def test_rows_have_the_columns_of_the_hub(built):
    _, splits, _ = built
    row = splits.train[0]
    assert set(row) == {"info", "summaries", "choice", "worker", "batch", "split", "extra"}
    assert set(row["info"]) == {"id", "post", "title", "subreddit", "site", "article"}
    assert [set(summary) for summary in row["summaries"]] == [{"text", "policy", "note"}] * 2


def test_texts_are_those_of_tldr(built):
    raw, splits, _ = built
    for row in splits.train.select(range(200)):
        prompt = raw.prompt(row)
        assert re.fullmatch(r"POST\nSubreddit: r/\w+\n.+\nTL;DR: ", prompt, flags=re.DOTALL)
        assert len(prompt.split()) <= 60 + 5
        for text in (raw.chosen(row), raw.rejected(row)):
            assert text.startswith(" ") and text.strip()


def test_every_pair_differs_and_sides_are_even(built):
    raw, splits, _ = built
    assert all(raw.chosen(row) != raw.rejected(row) for row in splits.train)
    share = sum(splits.train["choice"]) / len(splits.train)
    assert 0.45 < share < 0.55


def test_nothing_leaks_from_train_to_evaluation(built):
    raw, splits, _ = built
    train, evaluation = (
        ([raw.prompt(row) for row in split], {raw.chosen(row) for row in split})
        for split in (splits.train, splits.evaluation)
    )
    assert not set(train[0]) & set(evaluation[0])
    assert not train[1] & evaluation[1]
    assert not {raw.rejected(row) for row in splits.train} & evaluation[1]
    # every post is compared equally often, each time with another rejected summary
    comparisons = Counter(train[0])
    assert len(set(comparisons.values())) == 1
    pairs = {(raw.prompt(row), raw.rejected(row)) for row in splits.train}
    assert len(pairs) > 0.9 * len(splits.train)


def test_documented_objects_are_found_without_importing_them(built):
    _, splits, _ = built
    rows = [row for split in (splits.train, splits.evaluation) for row in split]
    titles = {row["info"]["title"] for row in rows}
    assert {"json.decoder", "shutil", "logging"} <= titles
    assert not any(title.split(".")[0] in ("test", "idlelib", "lib2to3", "site-packages") for title in titles)


def test_second_load_reads_the_cache(built, monkeypatch):
    raw, splits, _ = built

    def never():
        raise AssertionError("collected again")

    monkeypatch.setattr(builtin, "collect_docstrings", never)
    assert raw.load(SFT.texts).train[5] == splits.train[5]


def test_docstrings_are_collected_in_one_order(monkeypatch, tmp_path):
    for name, text in {
        "b.py": "Second module here.\n\nIt has a longer text about everything.",
        "a.py": "First module here.\n\nIt has a longer text about nothing.",
        "test/c.py": "A test module here.\n\nIt has a longer text too, never read.",
        "broken.py": None,
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(f'"""{text}"""\n' if text else "def (:\n")
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    assert collect_docstrings() == [
        Summarised("a", "It has a longer text about nothing.", "First module here."),
        Summarised("b", "It has a longer text about everything.", "Second module here."),
    ]


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        (
            "Return the sum.\n\nThe sum is over all of the items.",
            ("Return the sum.", "The sum is over all of the items."),
        ),
        (
            "Return the sum of it.  The sum is over all of the items.",
            ("Return the sum of it.", "The sum is over all of the items."),
        ),
        ("Return the sum.", None),
        ("Sum.\n\nThe sum is over all of the items.", None),
        ("Return the sum.\n\nToo short.", None),
        (">>> add(1, 2)\n\nThe sum is over all of the items.", None),
    ],
)
def test_docstring_is_split_into_summary_and_post(docstring, expected):
    item = builtin._split_docstring(docstring, "m")
    assert (item and (item.summary, item.post)) == expected


def test_post_is_trimmed_to_the_limits():
    words = builtin._split_docstring("Return the sum.\n\n" + "word " * 500, "m").post
    assert len(words.split()) == builtin.MAX_POST_WORDS
    characters = builtin._split_docstring(
        "Return the sum.\n\n" + "characters" * 3 + " " + "abcdefghijk " * 55, "m"
    ).post
    assert len(characters) <= builtin.MAX_POST_CHARACTERS
    assert characters.endswith("abcdefghijk")


def test_rows_depend_on_the_seed_alone():
    first, same, other = (build_rows(ITEMS, seed=seed) for seed in (5, 5, 6))
    assert first == same
    assert first != other


def test_few_docstrings_are_used_several_times_without_leaking():
    splits = build_rows(ITEMS, seed=0)
    assert sum(map(len, splits.values())) >= builtin.MIN_PAIRS
    posts = [{row["info"]["post"] for row in splits[name]} for name in ("train", "validation")]
    assert not posts[0] & posts[1]
    assert (len(posts[0]), len(posts[1])) == (54, 6)


def test_rejected_summaries_are_of_all_kinds():
    rows = build_rows(ITEMS, seed=0)["train"]
    kinds = Counter(row["summaries"][1 - row["choice"]]["policy"] for row in rows)
    assert set(kinds) == {"other", "shuffled", "cut", "repeated"}
    assert min(kinds.values()) > 0.05 * len(rows)
    assert all(row["summaries"][row["choice"]]["policy"] == "docstring" for row in rows)


def test_python_without_sources_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    with pytest.raises(UserError, match="found no docstrings"):
        find_raw_dataset("pydoc-tldr", seed=1, cache_dir=tmp_path / "cache").load()


def test_key_follows_seed_and_sources(monkeypatch, tmp_path):
    keys = [BuiltinSource(seed, tmp_path).fingerprint() for seed in (1, 1, 2)]
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    keys.append(BuiltinSource(1, tmp_path).fingerprint())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3

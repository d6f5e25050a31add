"""The commands with which the quickstart ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.options import parse_options
from quickstart.judge import answers_file, chain, judge_words

SAMPLING = {"temperature": 0.7, "top-k": 9, "max-new-tokens": 17}


def make_chain(out: Path) -> list[tuple[str, list[str]]]:
    for folder in ("sft", "kl/actor", "reward"):
        (out / folder).mkdir(parents=True)
    models = {"sft": out / "sft", "kl": out / "kl"}
    return chain(models, out, dataset="pydoc-tldr", samples=5, sampling=SAMPLING)


def test_every_model_answers_and_every_pair_is_judged_before_the_page_is_drawn(tmp_path: Path) -> None:
    commands = make_chain(tmp_path)
    assert [name for name, _ in commands] == ["answers-sft", "answers-kl", "judge-kl-sft", "report"]
    report = commands[-1][1]
    for _, words in commands[:-1]:
        assert words[words.index("--output") + 1] in report


def test_inference_takes_the_flags_that_it_is_given(tmp_path: Path) -> None:
    for name, words in make_chain(tmp_path)[:2]:
        options = parse_options(words[2:])
        assert (options.temperature, options.top_k, options.max_new_tokens) == (0.7, 9, 17)
        assert options.num_samples == 5
        assert options.no_actor_folder == (name == "answers-sft")
        assert options.output == answers_file(tmp_path, name.removeprefix("answers-"))


@pytest.mark.parametrize(("key", "judge"), [("", "reward-model"), ("sk-test", "openai")])
def test_a_language_model_judges_where_a_key_is_set(
    key: str, judge: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    words = judge_words("kl", "sft", tmp_path, dataset="pydoc-tldr")
    assert words[words.index("--judge") + 1] == judge
    assert not any(key and key in word for word in words)

"""The judge's program where verdicts cannot be had: what is told, kept, asked again, and the exit status."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from dschat.judging.criteria import find_criteria
from dschat.judging.judges import Stopped
from dschat.judging.pairs import load_pairs
from dschat.judging.pairwise import ask_all, judge_by_reward, questions
from dschat.judging.verdicts import Contest
from tests.judging.helpers import PROGRAM, judge_words, read_rows, run_program, summary_of, write_results
from tests.judging.judge_server import Asked, Says, judge_server, message
from tests.judging.test_judges import KEY, leaks


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Six rows of two models."""
    return tuple(write_results(tmp_path / f"{side}.jsonl", [f"{side}{row}" for row in range(6)]) for side in "ab")


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Where verdicts go."""
    return tmp_path / "out.jsonl"


def test_a_judge_that_gives_no_verdict_is_shown_and_is_no_success(files, output):
    with judge_server(lambda asked: Says(f"I like {asked.first} \x1b[2J best")) as server:
        done = run_program(PROGRAM, *judge_words(*files, output, server.url, "--order", "fixed"))
        assert len(server.asked) == 12
    assert done.returncode == 2
    warning, mistake = [line for line in done.stderr.splitlines() if "the judge said" in line]
    assert warning.startswith("WARNING  5 replies in a row hold no verdict")
    assert "\\x1b[2J best'; expected A, B or E" in warning and "\x1b" not in done.stderr + done.stdout
    assert mistake.startswith("error: no pair could be judged") and "--judge_model" in mistake
    assert "win rate of A        not given: only 0 of the 6 pairs that were tried could be judged" in done.stdout
    assert summary_of(output)["win_rate"] is None
    with judge_server(lambda asked: Says("A")) as server:
        words = judge_words(*files, output, server.url, "--order", "fixed")
        assert run_program(PROGRAM, *words).returncode == 2  # they were paid for, and there is still no verdict
        assert server.asked == []
        again = run_program(PROGRAM, *words, "--retry_unparsable")
        assert (again.returncode, len(server.asked)) == (0, 6)
    summary = summary_of(output)
    assert (summary["wins"], summary["unparsable_verdicts"], summary["requests"]) == (6, 0, 18)


def test_a_win_rate_needs_half_of_the_pairs(files, output):
    def script(asked: Asked) -> Says:
        return Says("A" if asked.first in readable else "hm")

    words = ["--order", "fixed", "--concurrency", 1, "--retry_unparsable"]
    for readable, rate in ((("a0", "a5"), None), (("a0", "a1", "a5"), 1.0)):
        with judge_server(script) as server:
            done = run_program(PROGRAM, *judge_words(*files, output, server.url, *words))
        assert done.returncode == 0
        summary = summary_of(output)
        assert (summary["judged"], summary["win_rate"], summary["win_rate_agreeing_only"]) == (
            len(readable),
            rate,
            rate,
        )
        assert (summary["interval"] is None) == (rate is None)
        assert ("win rate of A        not given: only 2 of the 6" in done.stdout) == (rate is None)
        assert "in a row" not in done.stderr  # four, then another


def test_a_server_that_wants_money_ends_the_run_at_once_and_it_goes_on_when_it_got_some(files, output):
    with judge_server(lambda asked: Says("Insufficient Balance", status=402)) as server:
        done = run_program(PROGRAM, *judge_words(*files, output, server.url))
        assert len(server.asked) == 1
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("error: ") and "Insufficient Balance" in done.stderr
    (row,) = read_rows(output)
    assert row["status"] == "failed" and "Insufficient Balance" in row["problem"]
    assert (summary_of(output)["failed"], summary_of(output)["pending"]) == (1, 5)
    with judge_server(lambda asked: Says("A" if asked.first[0] == "a" else "B")) as server:
        assert run_program(PROGRAM, *judge_words(*files, output, server.url)).returncode == 0
        assert len(server.asked) == 12
    assert summary_of(output)["wins"] == 6


def test_refused_questions_are_not_asked_again_unless_that_is_wished(files, output):
    def script(asked: Asked) -> Says:
        return Says("this content is not allowed", status=400) if asked.first == "a3" and not allowed else Says("A")

    words = ["--order", "fixed"]
    allowed = False
    with judge_server(script) as server:
        command = judge_words(*files, output, server.url, *words)
        done = run_program(PROGRAM, *command)
        assert done.returncode == 0 and "refused 1, failed 0" in done.stdout
        (row,) = [row for row in read_rows(output) if row["status"] != "judged"]
        assert (row["status"], row["problem"]) == ("refused", "status 400: this content is not allowed")
        asked = len(server.asked)
        assert run_program(PROGRAM, *command).returncode == 0 and len(server.asked) == asked
        allowed = True
        assert run_program(PROGRAM, *command, "--retry_unparsable").returncode == 0 and len(server.asked) == asked + 1
    summary = summary_of(output)
    assert (summary["judged"], summary["refused_verdicts"], summary["failed"]) == (6, 0, 0)


def test_a_judge_that_thinks_first_has_room_by_default_and_is_told_the_flag_where_it_has_not(files, output, tmp_path):
    def script(asked: Asked) -> Says:
        if asked.body["max_tokens"] < 200:
            return message("", "length", reasoning_content="Let me")
        return Says("<think>\nSummary A is short.\n</think>\n\nA")

    with judge_server(script) as server:
        done = run_program(PROGRAM, *judge_words(*files, output, server.url))
        assert done.returncode == 0 and len(server.asked) == 12
        short = judge_words(*files, tmp_path / "short.jsonl", server.url, "--max_tokens", 16)
        done = run_program(PROGRAM, *short)
    assert done.returncode == 2 and "raise --max_tokens" in done.stderr.splitlines()[-1]
    assert run_program(PROGRAM, *short[:-1], 0).stderr == "error: --max_tokens must be at least 1, got 0\n"


def test_nothing_that_was_answered_is_lost_beside_replies_of_any_shape(files, output):
    odd = {"a0": None, "a1": [], "a2": {"x": 1}, "a3": 5}

    def script(asked: Asked) -> Says:
        return message(odd[asked.first]) if asked.first in odd else Says("A")

    with judge_server(script) as server:
        done = run_program(PROGRAM, *judge_words(*files, output, server.url, "--order", "fixed"))
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert Counter(row["status"] for row in read_rows(output)) == {"unparsable": 4, "judged": 2}


@pytest.mark.parametrize("status", [200, 400, 401, 402, 500])
def test_the_key_is_in_no_output_and_no_file(files, output, status):
    text = "x" * 285 + f" {KEY} " + json.dumps({"comparison": KEY, "choice": "A"})
    with judge_server(lambda asked: Says(text, status=status)) as server:
        words = judge_words(*files, output, server.url, "--max_retries", 0)
        done = run_program(PROGRAM, *words, OPENAI_API_KEY=f" {KEY}\n")
        assert {each.headers["authorization"] for each in server.asked} == {f"Bearer {KEY}"}
    written = "".join(path.read_text() for path in output.parent.iterdir())
    assert not leaks(done.stdout + done.stderr + written)
    assert "•••" in written


def test_questions_that_the_environment_sends_somewhere_are_announced(files, output):
    with judge_server(lambda asked: Says("A")) as server:
        words = judge_words(*files, output, server.url)
        at = words.index("--base_url")
        words = [*words[:at], *words[at + 2 :]]
        url = server.url.replace("//", "//name:password@")
        done = run_program(PROGRAM, *words, OPENAI_BASE_URL=url, OPENAI_API_KEY="key")
        assert done.returncode == 0 and len(server.asked) == 12
    assert f"questions go to {server.url}, as OPENAI_BASE_URL says" in done.stderr and "password" not in done.stderr


@pytest.mark.parametrize(
    "url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1", "http://[", "x"]
)
def test_an_address_that_is_none_is_one_sentence(files, output, url):
    done = run_program(PROGRAM, *judge_words(*files, output, url))
    sentence = "error: --base_url is no address of a server; pass one such as http://localhost:8000/v1"
    assert (done.returncode, done.stderr.splitlines()[-1]) == (2, sentence)


def test_a_key_that_no_header_takes_is_one_sentence_without_it(files, output):
    done = run_program(PROGRAM, *judge_words(*files, output, "http://localhost:1/v1"), OPENAI_API_KEY="sk-é-1234")
    assert done.returncode == 2 and "1234" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: the API key holds characters")


def test_rewards_that_are_missing_everywhere_are_no_success(tmp_path, output):
    a = write_results(tmp_path / "a.jsonl", ["x", "y"], rewards=[None, 1.0])
    b = write_results(tmp_path / "b.jsonl", ["p", "q"], rewards=[1.0, None])
    words = ["--model_name_a", a, "--model_name_b", b, "--dataset", "summarize", "--output", output]
    done = run_program(PROGRAM, *words, "--judge", "reward-model")
    assert done.returncode == 2 and "no pair could be judged: an answer of this pair has no reward" in done.stderr


def test_the_summary_names_the_models_behind_the_files(files, output):
    settings = {"settings": {"model": "out/actor", "ref_scores": False}}
    files[0].with_name("a.jsonl.run.json").write_text(json.dumps(settings))
    with judge_server(lambda asked: Says("A")) as server:
        done = run_program(PROGRAM, *judge_words(*files, output, server.url))
    assert f"A: {files[0]} (out/actor)\n" in done.stdout and f"B: {files[1]}\n" in done.stdout
    assert (summary_of(output)["made_by_a"], summary_of(output)["made_by_b"]) == ("out/actor", None)


def test_a_fault_of_our_own_loses_no_answer_of_the_other_threads(files):
    pairs = load_pairs(*files, num_sample=6, flags=("a", "b"))
    contest = Contest("a", "b", "summarize", "j", find_criteria("summarize").name)
    recorded = []

    def ask(question):
        if question.pair.row == 2:
            raise ZeroDivisionError("our own")
        if question.pair.row > 3:
            raise Stopped
        return judge_by_reward(question)

    with pytest.raises(ZeroDivisionError):
        asked = questions(pairs, contest, order="fixed", seed=0)
        ask_all(asked, ask, recorded.append, concurrency=6, stop=lambda: None)
    assert sorted(verdict.pair.row for verdict in recorded) == [0, 1, 3]

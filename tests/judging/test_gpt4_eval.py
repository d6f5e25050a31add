"""The judge's program (`judging/gpt4_eval.py`) against a server that it cannot tell from a real one."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.judging.helpers import (
    PROGRAM,
    ROOT,
    environment,
    judge_words,
    read_rows,
    run_program,
    summary_of,
    write_results,
)
from tests.judging.judge_server import Asked, Says, judge_server


def prefer(winners: dict[int, str]):
    """A script that knows the best answer of each row ("a", "b" or "tie"), whatever the order."""

    def script(asked: Asked) -> Says:
        row = int(re.findall(r"\d+", asked.first)[0])
        if winners[row] == "tie":
            return Says("E")
        return Says("A" if asked.first.startswith(winners[row]) else "B")

    return script


def make_pair(tmp_path: Path, rows: int, rewards_a: list[float] | None = None) -> tuple[Path, Path]:
    """Results of two models: answers "a<row>" and longer "b<row> ..."; B's rewards are 0."""
    a = write_results(tmp_path / "a.jsonl", [f"a{row}" for row in range(rows)], rewards=rewards_a)
    b = write_results(tmp_path / "b.jsonl", [f"b{row} and more" for row in range(rows)])
    return a, b


def test_scripted_verdicts_are_tallied_exactly(tmp_path):
    winners = {0: "a", 1: "a", 2: "a", 3: "b", 4: "tie", 5: "a", 6: "b"}
    a, b = make_pair(tmp_path, 7, rewards_a=[1.0, 1.0, -1.0, -1.0, 1.0, 1.0, 1.0])
    output = tmp_path / "new" / "folder" / "out.jsonl"
    with judge_server(prefer(winners)) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url))
        assert done.returncode == 0, done.stderr
        assert len(server.asked) == 14
        assert {each.body["model"] for each in server.asked} == {"gpt-4o-2024-05-13"}
        assert {each.body["temperature"] for each in server.asked} == {0}
    summary = summary_of(output)
    expected = {
        "wins": 4, "ties": 1, "losses": 2, "judged": 7, "failed": 0, "pending": 0, "requests": 14, "disagreeing": 0,
        "position_bias": 0.5, "shown_first_chosen": 6, "shown_second_chosen": 6, "tie_verdicts": 2,
    }  # fmt: skip
    assert {name: summary[name] for name in expected} == expected
    assert summary["win_rate"] == pytest.approx(4.5 / 7)
    assert summary["length_bias"] == pytest.approx(2 / 6)  # B's answers are the longer ones
    assert summary["reward_agreement"] == pytest.approx(4 / 6)  # rows 2 and 6 disagree
    low, high = summary["interval"]
    assert 0 < low < 4.5 / 7 < high <= 1
    rows = read_rows(output)
    assert Counter(row["first"] for row in rows) == {"A": 7, "B": 7}
    assert {row["winner"] for row in rows if row["row"] == 0} == {"A"}
    row = rows[0]
    assert row[str(a)].startswith("a") and row[f"{b}_reward_score"] == 0.0 and row["replies"] in (["A"], ["B"])
    assert "64.3 %" in done.stdout


def test_judge_that_always_says_a_gives_one_half_and_full_position_bias(tmp_path):
    a, b = make_pair(tmp_path, 9)
    output = tmp_path / "out.jsonl"
    with judge_server(lambda asked: Says("A")) as server:
        run_program(PROGRAM, *judge_words(a, b, output, server.url))
    summary = summary_of(output)
    assert (summary["win_rate"], summary["position_bias"]) == (0.5, 1.0)
    assert (summary["wins"], summary["ties"], summary["losses"], summary["disagreeing"]) == (0, 9, 0, 9)
    assert summary["agreeing_only"] == {"wins": 0, "ties": 0, "losses": 0}
    assert summary["win_rate_agreeing_only"] is None


def test_random_order_is_seeded_recorded_and_asks_once(tmp_path):
    a, b = make_pair(tmp_path, 20)
    sides = []
    for name in ("one", "two"):
        output = tmp_path / f"{name}.jsonl"
        with judge_server(prefer(dict.fromkeys(range(20), "a"))) as server:
            run_program(PROGRAM, *judge_words(a, b, output, server.url, "--order", "random", "--seed", 5))
            assert len(server.asked) == 20
        sides.append({row["row"]: row["first"] for row in read_rows(output)})
    assert sides[0] == sides[1]
    assert set(sides[0].values()) == {"A", "B"}
    assert summary_of(output)["win_rate"] == 1.0


def test_retry_after_is_waited_for_and_every_request_is_counted(tmp_path):
    a, b = make_pair(tmp_path, 1)
    output = tmp_path / "out.jsonl"

    def script(asked: Asked) -> Says:
        if asked.attempt == 1:
            return Says("slow down", status=429, headers={"Retry-After": "1.5"})
        return Says("A")

    with judge_server(script) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url, "--order", "fixed"))
        assert done.returncode == 0, done.stderr
        first, second = server.asked
    assert 1.5 <= second.at - first.at < 4
    summary = summary_of(output)
    assert (summary["requests"], summary["wins"], summary["failed"]) == (2, 1, 0)


def test_errors_that_pass_are_tried_again_and_errors_that_stay_are_kept_and_asked_again_later(tmp_path):
    a, b = make_pair(tmp_path, 4)
    output = tmp_path / "out.jsonl"
    healed = threading.Event()

    def script(asked: Asked) -> Says:
        if asked.first == "a0" and asked.attempt == 1:
            return Says(status=500)
        if asked.first == "a1" and asked.attempt == 1:
            return Says(raw=b'{"id": "x", "choices": [{"mess')  # a body that was cut
        if asked.first == "a2" and asked.attempt == 1:
            return Says(delay=3.0)  # longer than --timeout
        if asked.first == "a3" and not healed.is_set():
            return Says(status=503)
        return Says("A")

    words = ["--order", "fixed", "--timeout", 1, "--max_retries", 1]
    with judge_server(script) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url, *words))
        assert done.returncode == 75, done.stderr
        assert Counter(each.first for each in server.asked) == {"a0": 2, "a1": 2, "a2": 2, "a3": 2}
        summary = summary_of(output)
        expected = {"wins": 3, "judged": 3, "failed": 1, "failed_verdicts": 1, "requests": 8, "win_rate": 1.0}
        assert {name: summary[name] for name in expected} == expected
        failed = [row for row in read_rows(output) if row["status"] == "failed"]
        assert len(failed) == 1 and "503" in failed[0]["problem"] and failed[0]["winner"] is None
        healed.set()
        server.asked.clear()
        again = run_program(PROGRAM, *judge_words(a, b, output, server.url, *words))
        assert again.returncode == 0, again.stderr
        assert [each.first for each in server.asked] == ["a3"]
    summary = summary_of(output)
    assert (summary["wins"], summary["failed"], summary["requests"]) == (4, 0, 9)
    assert failed[0] in read_rows(output)  # nothing is dropped


def test_replies_that_are_no_verdict_are_asked_about_once_more_then_kept(tmp_path):
    a, b = make_pair(tmp_path, 3)
    output = tmp_path / "out.jsonl"
    replies = {
        "a0": ["Summary A is better because", '{"comparison": "A is short", "choice": "A"}'],
        "a1": ['{"comparison": "cut off', "I would rather not"],
        "a2": [None, None],
    }

    def script(asked: Asked) -> Says:
        text = replies[asked.first][asked.attempt - 1]
        return Says(text, refusal=None if text else "I cannot judge this")

    words = judge_words(a, b, output, "{}", "--order", "fixed")
    with judge_server(script) as server:
        words[words.index("{}")] = server.url
        done = run_program(PROGRAM, *words)
        assert done.returncode == 0, done.stderr
        assert len(server.asked) == 6
        roles = [message["role"] for message in server.asked[-1].body["messages"]]
        assert set(map(str, roles)) == {"user", "assistant"}
        run_program(PROGRAM, *words)
        assert len(server.asked) == 6  # they were paid for
    rows = {row["row"]: row for row in read_rows(output)}
    assert (rows[0]["winner"], rows[0]["comment"]) == ("A", "A is short")
    assert rows[1]["status"] == "unparsable" and rows[1]["replies"] == replies["a1"]
    assert rows[2]["status"] == "unparsable" and rows[2]["replies"] == ["I cannot judge this"] * 2
    summary = summary_of(output)
    assert (summary["judged"], summary["failed"], summary["unparsable_verdicts"], summary["requests"]) == (1, 2, 2, 6)


def test_budget_ends_the_run_and_a_rerun_asks_only_for_the_rest(tmp_path):
    a, b = make_pair(tmp_path, 6)
    output = tmp_path / "out.jsonl"
    with judge_server(prefer(dict.fromkeys(range(6), "b"))) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url, "--max_requests", 5))
        assert done.returncode == 75 and "--max_requests 5 is used up" in done.stderr
        assert len(server.asked) == 5 == len(read_rows(output))
        summary = summary_of(output)
        assert summary["judged"] + summary["pending"] == 6 and summary["pending"] >= 3
        assert run_program(PROGRAM, *judge_words(a, b, output, server.url)).returncode == 0
        assert len(server.asked) == 12
        assert max(Counter((each.first, each.second) for each in server.asked).values()) == 1
    assert summary_of(output)["losses"] == 6


def test_kill_in_the_middle_and_rerun_ask_nothing_twice(tmp_path):
    rows = 20
    a, b = make_pair(tmp_path, rows)
    output = tmp_path / "out.jsonl"
    hold = threading.Event()
    limit = 11

    def script(asked: Asked) -> Says:
        # after some verdicts the judge falls silent, so the requests under way at the kill were never answered
        with server.lock:
            silent = len(server.asked) > limit and not hold.is_set()
        if silent:
            hold.wait(30)
            raise ConnectionResetError
        return prefer(dict.fromkeys(range(rows), "a"))(asked)

    with judge_server(script) as server:
        words = [sys.executable, str(PROGRAM), *map(str, judge_words(a, b, output, server.url, "--concurrency", 3))]
        process = subprocess.Popen(words, cwd=ROOT, env=environment(), stderr=subprocess.DEVNULL)
        wait_for(lambda: output.is_file() and len(output.read_bytes().splitlines()) == limit)
        process.send_signal(signal.SIGKILL)
        process.wait()
        hold.set()
        # as if the kill had torn a line that was being written
        with output.open("ab") as file:
            file.write(b'{"prompt": "post 1')
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url))
        assert done.returncode == 0, done.stderr
        assert len(server.answered) == 2 * rows
        assert set(server.answered.values()) == {1}
    keys = [row["key"] for row in read_rows(output)]
    assert len(keys) == len(set(keys)) == 2 * rows
    assert summary_of(output)["wins"] == rows


def wait_for(condition, seconds: float = 30) -> None:
    """Poll until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("status", "code", "hint"),
    [(401, None, "OPENAI_API_KEY"), (404, "model_not_found", "--judge_model"), (429, "insufficient_quota", "quota")],
)
def test_errors_that_no_retry_mends_end_the_run_at_once(tmp_path, status, code, hint):
    a, b = make_pair(tmp_path, 8)
    output = tmp_path / "out.jsonl"
    with judge_server(lambda asked: Says("no: sk-secret", status=status, code=code)) as server:
        words = judge_words(a, b, output, server.url, "--concurrency", 2)
        done = run_program(PROGRAM, *words, OPENAI_API_KEY="sk-secret")
        assert len(server.asked) <= 2
        assert {each.headers["authorization"] for each in server.asked} == {"Bearer sk-secret"}
    assert done.returncode == 2 and hint in done.stderr
    assert "sk-secret" not in done.stderr + done.stdout + output.read_text()


def test_key_on_the_command_line_works_with_a_warning(tmp_path):
    a, b = make_pair(tmp_path, 1)
    with judge_server(lambda asked: Says("A")) as server:
        done = run_program(PROGRAM, "--sk", "sk-shown", *judge_words(a, b, tmp_path / "out.jsonl", server.url))
        assert {each.headers["authorization"] for each in server.asked} == {"Bearer sk-shown"}
    assert done.returncode == 0 and "--sk shows the API key" in done.stderr and "sk-shown" not in done.stderr


@pytest.mark.parametrize("dataset", ["hh-rlhf", "webgpt", "summarize", "pydoc-tldr", "openai/webgpt_comparisons"])
def test_every_dataset_accepts_a_letter_and_an_object(tmp_path, dataset):
    a, b = make_pair(tmp_path, 2)
    output = tmp_path / "out.jsonl"
    verdict = json.dumps({"comparison": "The first one is right.", "choice": "A"})
    replies = {"a0": " A.\n", "a1": f"```json\n{verdict}\n```"}

    with judge_server(lambda asked: Says(replies[asked.first])) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url, "--order", "fixed", dataset=dataset))
        assert done.returncode == 0, done.stderr
        assert len(server.asked) == 2
        wants_object = '"choice"' in server.asked[0].body["messages"][0]["content"]
    assert wants_object == (dataset not in ("summarize", "pydoc-tldr"))
    assert summary_of(output)["wins"] == 2


def test_equal_answers_are_a_tie_and_cost_nothing(tmp_path):
    a = write_results(tmp_path / "a.jsonl", ["same", "a1"])
    b = write_results(tmp_path / "b.jsonl", ["same", "b1"])
    output = tmp_path / "out.jsonl"
    with judge_server(lambda asked: Says("A" if asked.first == "a1" else "B")) as server:
        run_program(PROGRAM, *judge_words(a, b, output, server.url))
        assert len(server.asked) == 2
    summary = summary_of(output)
    assert (summary["wins"], summary["ties"], summary["judged"], summary["tie_verdicts"]) == (1, 1, 2, 0)


def test_reward_model_decides_without_a_key_or_a_server(tmp_path):
    a = write_results(tmp_path / "a.jsonl", ["x", "y", "z", "w"], rewards=[1.0, 0.5, 0.25, None])
    b = write_results(tmp_path / "b.jsonl", ["p", "q", "r", "s"], rewards=[0.0, 0.5, 2.0, 1.0])
    output = tmp_path / "out.jsonl"
    words = ["--model_name_a", a, "--model_name_b", b, "--dataset", "summarize", "--output", output]
    done = run_program(PROGRAM, *words, "--judge", "reward-model")
    assert done.returncode == 0, done.stderr
    summary = summary_of(output)
    expected = {"wins": 1, "ties": 1, "losses": 1, "judged": 3, "failed": 1, "judge": "reward-model", "requests": 0}
    assert {name: summary[name] for name in expected} == expected
    assert summary["position_bias"] is None and summary["reward_agreement"] is None


def test_without_a_key_nothing_is_written(tmp_path):
    a, b = make_pair(tmp_path, 1)
    output = tmp_path / "out.jsonl"
    done = run_program(PROGRAM, "--model_name_a", a, "--model_name_b", b, "--dataset", "summarize", "--output", output)
    assert done.returncode == 2 and "OPENAI_API_KEY" in done.stderr and "--judge reward-model" in done.stderr
    assert not output.exists()


def test_a_hundred_kilobyte_answer_and_odd_characters_reach_the_judge_whole(tmp_path):
    texts = ["long " * 20_000, "line\u2028separator and \x00 and 🙂", "", "{first} {second} {prompt}"]
    a = write_results(tmp_path / "a.jsonl", texts)
    b = write_results(tmp_path / "b.jsonl", [f"b{row}" for row in range(4)])
    output = tmp_path / "out.jsonl"
    seen: set[str] = set()

    def script(asked: Asked) -> Says:
        seen.add(asked.first)
        return Says("A" if not asked.first.startswith("b") else "B")

    with judge_server(script) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url))
        assert done.returncode == 0, done.stderr
    assert {text.strip() for text in texts if text} <= seen
    assert "100,000 characters" in done.stderr and "1 answers of model A are empty" in done.stderr
    assert summary_of(output)["wins"] == 4


def bad_inputs(tmp_path: Path) -> dict[str, tuple[list[object], str]]:
    """Command lines that cannot work, each with words of its message."""
    a, b = make_pair(tmp_path, 3)
    short = write_results(tmp_path / "short.jsonl", ["b0", "b1"])
    other = write_results(tmp_path / "other.jsonl", ["b0", "b1", "b2"], prompt="another {row}")
    surrogate = tmp_path / "surrogate.jsonl"
    surrogate.write_text('{"prompt": "p", "response": "\\ud800", "reward": 1}\n')
    nothing = tmp_path / "nothing.jsonl"
    nothing.touch()
    no_response = tmp_path / "no_response.jsonl"
    no_response.write_text('{"prompt": "p"}\n')
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "p", "resp')
    return {
        "missing": ([a, tmp_path / "none.jsonl", "summarize"], "there is no such file"),
        "rows": ([a, short, "summarize"], "has 3 rows and"),
        "prompts": ([a, other, "summarize"], "row 1 of"),
        "surrogate": ([surrogate, b, "summarize"], "surrogate"),
        "empty": ([nothing, b, "summarize"], "holds no row"),
        "field": ([no_response, b, "summarize"], "'response'"),
        "json": ([broken, b, "summarize"], "not JSON"),
        "same": ([a, a, "summarize"], "the same file"),
        "dataset": ([a, b, "sumarize"], "did you mean summarize"),
    }


@pytest.mark.parametrize(
    "case", ["missing", "rows", "prompts", "surrogate", "empty", "field", "json", "same", "dataset"]
)
def test_bad_input_is_one_sentence_and_asks_nothing(tmp_path, case):
    (a, b, dataset), words = bad_inputs(tmp_path)[case]
    output = tmp_path / "out.jsonl"
    with judge_server(lambda asked: Says("A")) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url, dataset=dataset))
        assert server.asked == []
    assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert words in done.stderr
    assert not output.exists()


@pytest.mark.parametrize("content", ["notes of mine\nand more", '{"prompt": "p"}\n', '[1, 2]\n{"torn'])
def test_output_that_is_another_file_is_left_as_it_is(tmp_path, content):
    a, b = make_pair(tmp_path, 1)
    output = tmp_path / "notes.txt"
    output.write_text(content)
    with judge_server(lambda asked: Says("A")) as server:
        done = run_program(PROGRAM, *judge_words(a, b, output, server.url))
        assert server.asked == []
    assert done.returncode == 2 and done.stderr.splitlines()[-1].startswith("error: --output")
    assert output.read_text() == content


def test_verdicts_of_another_comparison_are_not_mixed_in(tmp_path):
    a, b = make_pair(tmp_path, 2)
    output = tmp_path / "out.jsonl"
    with judge_server(lambda asked: Says("A")) as server:
        words = judge_words(a, b, output, server.url)
        assert run_program(PROGRAM, *words).returncode == 0
        before = output.read_bytes()
        other_judge = run_program(PROGRAM, *words, "--judge_model", "another")
        write_results(a, ["changed", "a1"])
        other_answers = run_program(PROGRAM, *words)
    assert other_judge.returncode == 2 and "name another file" in other_judge.stderr
    assert other_answers.returncode == 2 and "other answers" in other_answers.stderr
    assert output.read_bytes() == before

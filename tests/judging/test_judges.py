"""One judge against a scripted server: what it sends, what it makes of replies and failures, and what it lets out."""

from __future__ import annotations

import base64
import json
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from typing import Any
from urllib.parse import quote

import pytest

from dschat.judging.criteria import find_criteria
from dschat.judging.judges import (
    LONGEST_RETRY_AFTER_SECONDS,
    Answer,
    Budget,
    BudgetUsedUp,
    OpenAIJudge,
    Stopped,
    _retry_after,
)
from dschat.judging.redaction import WINDOW
from dschat.judging.replies import KEPT_CHARACTERS
from dschat.judging.transport import MAX_REPLY_BYTES
from tests.judging.judge_server import Asked, JudgeServer, Says, Script, judge_server, message

KEY = "sk-Zx8Lq9WWq7TtPo5Rr3YyQ"
CRITERIA = find_criteria("summarize")


def judge_at(server: JudgeServer, **settings: Any) -> OpenAIJudge:
    """A judge that does not retry, unless told otherwise."""
    defaults = {"api_key": KEY, "timeout": 5.0, "max_tokens": 4096, "max_retries": 0, "budget": Budget(None)}
    return OpenAIJudge(model="judge", base_url=server.url, **(defaults | settings))


def ask(judge: OpenAIJudge, first: str = "a0") -> Answer:
    return judge.ask(CRITERIA, prompt="p", first=first, second="b0")


def answer_to(script: Script, **settings: Any) -> tuple[Answer, list[Asked]]:
    """What a judge makes of a server, asked once, and what was asked."""
    with judge_server(script) as server:
        return ask(judge_at(server, **settings)), server.asked


def refuse(text: str, status: int = 400, **more: Any) -> Says:
    return Says(text, status=status, **more)


# --- parameters that a judge does not take


def takes(*, limit: str | None, temperature: float | None = 0, words: dict[str, Says] | None = None) -> Script:
    """A server that takes a limit of one name (or none), and one temperature (or none)."""

    def script(asked: Asked) -> Says:
        for name in ("max_tokens", "max_completion_tokens"):
            if name in asked.body and name != limit:
                return (words or {}).get(name) or refuse(f"Unsupported parameter: '{name}'.", param=name)
        if "temperature" in asked.body and asked.body["temperature"] != temperature:
            return (words or {}).get("temperature") or refuse("Unsupported parameter: 'temperature'.")
        return Says("A")

    return script


OPENAI = {
    "max_tokens": refuse(
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
        param="max_tokens", code="unsupported_parameter",
    ),
    "temperature": refuse(
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
        param="temperature", code="unsupported_value",
    ),
}  # fmt: skip
PYDANTIC = {name: refuse(f"[{{'loc': ['body', '{name}'], 'msg': 'Extra inputs are not permitted'}}]", 422)
            for name in ("max_tokens", "max_completion_tokens", "temperature")}  # fmt: skip


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        (takes(limit="max_tokens"), {"max_tokens": 4096, "temperature": 0}),
        (takes(limit="max_completion_tokens", words=OPENAI), {"max_completion_tokens": 4096, "temperature": 0}),
        (takes(limit="max_tokens", temperature=1, words=OPENAI), {"max_tokens": 4096, "temperature": 1}),
        (takes(limit="max_completion_tokens", temperature=1, words=OPENAI),
         {"max_completion_tokens": 4096, "temperature": 1}),
        (takes(limit="max_tokens", temperature=None), {"max_tokens": 4096}),
        (takes(limit=None), {"temperature": 0}),
        (takes(limit=None, temperature=None, words=PYDANTIC), {}),
    ],
)  # fmt: skip
def test_parameters_are_renamed_or_left_out_at_the_price_of_one_request_each(script: Script, sent: dict[str, Any]):
    with judge_server(script) as server:
        judge = judge_at(server)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda row: ask(judge, f"a{row}"), range(20)))
        bodies = [each.body for each in server.asked]
    assert {answer.status for answer in answers} == {"judged"}
    assert {name: value for name, value in bodies[-1].items() if name not in ("model", "messages")} == sent
    changes = 2 * ("max_tokens" not in sent) - ("max_completion_tokens" in sent) + (sent.get("temperature") != 0)
    assert len(bodies) == 20 + changes == sum(answer.requests for answer in answers)


def test_what_is_left_out_is_said_once_with_the_server_s_reason(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING, logger="dschat"):
        answer_to(takes(limit="max_completion_tokens", temperature=1, words=OPENAI))
    said = [record.getMessage() for record in caplog.records if record.name.startswith("dschat")]
    assert len(said) == 2
    assert "Use 'max_completion_tokens' instead" in said[0] and said[0].endswith("max_completion_tokens instead")
    assert "Only the default (1)" in said[1] and "verdicts may vary" in said[1]


@pytest.mark.parametrize(
    "text",
    [
        "max_tokens is too large: 4096. This model supports at most 512 completion tokens",
        "This model's maximum context length is 4096 tokens; you requested 4096 in 'max_tokens' and 50 in the messages",
    ],
)
def test_a_limit_that_is_too_large_is_named_and_not_left_out(text: str):
    answer, asked = answer_to(lambda asked: refuse(text, param="max_tokens"))
    assert (answer.status, len(asked)) == ("refused", 1)
    assert answer.problem.endswith("a --max_tokens below 4096 may help") and text in answer.problem


# --- refusals


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (refuse("Insufficient Balance", 402), ["Insufficient Balance", "top the account up"]),
        (refuse("no such key", 401), ["no such key", "OPENAI_API_KEY"]),
        (refuse("not for you", 403), ["not for you", "OPENAI_API_KEY"]),
        (refuse("no such model", 404), ["no such model", "--judge_model"]),
        (refuse("gone", 410), ["gone", "--judge_model"]),
        (refuse("what model?", 400, code="model_not_found"), ["what model?", "--judge_model"]),
        (refuse("what model?", 422, param="model"), ["what model?", "--judge_model"]),
        (refuse("no 'messages'", 400, code="unsupported_parameter"), ["no 'messages'", "--judge_model"]),
        (refuse("used up", 429, code="insufficient_quota"), ["used up", "quota"]),
        (Says(status=307, headers={"location": "http://u:pw@else/v1?k=1"}), ["(http://else/v1)", "--base_url"]),
        (Says(raw=b'{"error": {"code": 402, "message": "no credits"}}'), ["no credits", "top the account up"]),
    ],
)  # fmt: skip
def test_refusals_that_stay_end_the_run_after_one_request(says: Says, words: list[str]):
    with judge_server(lambda asked: says) as server:
        judge = judge_at(server, max_retries=5)
        with ThreadPoolExecutor(8) as pool:
            futures = [pool.submit(ask, judge, f"a{row}") for row in range(8)]
        failures = [future.exception() for future in futures]
        answers = [future.result() for future in futures if future.exception() is None]
        assert len(server.asked) == 1
    assert [type(failure) for failure in failures if failure] == [Stopped] * 7
    (answer,) = answers
    assert answer.ends_run is not None and str(answer.ends_run) == answer.problem
    assert all(word in answer.problem for word in words)
    assert "pw" not in answer.problem and "k=1" not in answer.problem


def test_refused_questions_end_the_run_only_while_nothing_was_answered():
    def script(asked: Asked) -> Says:
        return Says("A") if asked.first == "good" else refuse("your content is not allowed")

    with judge_server(script) as server:
        judge = judge_at(server)
        statuses = [ask(judge, f"a{row}").status for row in range(3)] + [ask(judge, "good").status]
        statuses += [ask(judge, f"a{row}").status for row in range(10)]
        assert statuses == ["refused"] * 3 + ["judged"] + ["refused"] * 10
        judge = judge_at(server)
        answers = [ask(judge, f"a{row}") for row in range(5)]
    assert [answer.ends_run is None for answer in answers] == [True] * 4 + [False]
    assert "refused the first 5 questions" in answers[-1].problem and "not allowed" in answers[-1].problem


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 529])
def test_failures_that_pass_are_tried_again(status: int):
    answer, asked = answer_to(
        lambda asked: Says("busy", status=status, headers={"retry-after": "0"}) if asked.attempt < 3 else Says("A"),
        max_retries=2,
    )
    assert (answer.status, answer.requests, len(asked)) == ("judged", 3, 3)


@pytest.mark.parametrize("value", ["nan", "inf", "-5", "1e400", "99, 99", "soon", "Mon, 01 Jan 0001 00:00:00 GMT"])
def test_a_time_to_wait_that_is_none_does_not_hold_up(value: str):
    began = time.monotonic()
    answer, _ = answer_to(
        lambda asked: Says("busy", status=503, headers={"retry-after": value}) if asked.attempt == 1 else Says("A"),
        max_retries=1,
    )
    assert answer.status == "judged" and time.monotonic() - began < 5


# --- replies


def test_thinking_is_not_sent_back_with_the_reminder():
    texts = ["<think>a long thought</think>I like both", "<think>again</think>B"]
    answer, asked = answer_to(lambda asked: Says(texts[asked.attempt - 1]))
    assert (answer.status, answer.reply.choice, answer.replies) == ("judged", "B", tuple(texts))
    assert [each["content"] for each in asked[1].body["messages"]][1:] == ["I like both", CRITERIA.reminder]


@pytest.mark.parametrize("content", [None, "", [], 5, {"a": 1}, [{"type": "image_url"}]])
def test_a_reply_without_text_is_kept_and_asked_about_once_more(content: Any):
    answer, asked = answer_to(lambda asked: message(content))
    assert (answer.status, answer.requests) == ("unparsable", 2) and answer.ends_run is None
    assert json.loads(answer.replies[0])["choices"][0]["message"]["content"] == content
    assert asked[1].body["messages"][1]["content"]  # servers refuse empty ones


def test_a_reply_that_was_cut_names_the_flag_and_is_not_paid_for_twice():
    for content in ("", "<think>Summary A is", '{"comparison": "Summary A'):
        answer, asked = answer_to(lambda asked, content=content: message(content, "length"), max_tokens=64)
        assert (answer.status, len(asked)) == ("unparsable", 1)
        assert answer.problem == "the reply ends at --max_tokens 64, before its verdict; raise --max_tokens"


def test_a_refused_reminder_leaves_the_reply_that_was_paid_for():
    answer, _ = answer_to(lambda asked: Says("hm") if asked.attempt == 1 else refuse("roles must alternate"))
    assert (answer.status, answer.replies, answer.requests) == ("unparsable", ("hm",), 2)
    assert "roles must alternate" in answer.problem


def test_a_reply_beyond_the_limit_is_cut_and_not_read_on():
    sent = b'{"choices": [{"message": {"content": "' + b"x" * (64 * MAX_REPLY_BYTES)
    answer, asked = answer_to(lambda asked: Says(raw=sent))
    assert (answer.status, len(asked)) == ("unparsable", 1)
    assert answer.problem == "the reply has more than 1,048,576 bytes"
    assert len(answer.replies[0]) == KEPT_CHARACTERS


def test_long_comments_and_replies_are_cut_in_the_record():
    text = json.dumps({"comparison": "x" * (KEPT_CHARACTERS - 50), "choice": "A"})
    answer, _ = answer_to(lambda asked: Says("<think>" + "y" * 50_000 + "</think>" + text))
    assert answer.status == "judged" and len(answer.replies[0]) == KEPT_CHARACTERS
    assert len(answer.reply.comment) == KEPT_CHARACTERS - 50


# --- time


def test_a_reply_that_drips_ends_at_the_deadline():
    began = time.monotonic()
    answer, _ = answer_to(lambda asked: Says("A", drip=0.1), timeout=1.0)
    assert time.monotonic() - began < 3
    assert answer.status == "failed" and "no whole reply within 1 s" in answer.problem


def test_a_server_that_is_silent_or_gone_is_no_reply():
    answer, _ = answer_to(lambda asked: Says("A", delay=3), timeout=0.5)
    assert answer.status == "failed" and "no whole reply within 0.5 s" in answer.problem
    with judge_server(lambda asked: Says("A")) as server:
        judge = judge_at(server)
    answer = ask(judge)
    assert answer.status == "failed" and "Connection refused" in answer.problem


# --- the key

FORMS: dict[str, Callable[[str], str]] = {
    "plain": str,
    "JSON": lambda text: "".join(f"\\u{ord(letter):04x}" for letter in text),
    "address": lambda text: "".join(f"%{ord(letter):02X}" for letter in text),
    "quoted": lambda text: quote(text, safe=""),
}


def error(status: int, **fields: Any) -> Says:
    return Says(status=status, raw=json.dumps({"error": fields}).encode())


def echoes(text: str) -> dict[str, Says]:
    """Everything that a server can put a text into."""
    plain = text.encode()
    successes = {
        "text": Says(text),
        "verdict": Says(json.dumps({"comparison": text, "choice": "A"})),
        "thinking": Says(f"<think>{text}</think>A"),
        "parts": message([{"type": "text", "text": text}, {"type": "thinking", "thinking": text}]),
        "other content": message({"odd": text}),
        "refusal": message(None, refusal=text),
        "cut": message(text, "length"),
        "reasoning": message("", reasoning_content=text),
        "choices": Says(raw=json.dumps({"choices": text}).encode()),
        "no choices": Says(raw=json.dumps({"note": text}).encode()),
        "no JSON": Says(raw=plain),
        "success with an error": Says(raw=json.dumps({"error": {"message": text, "code": 503}}).encode()),
        "too long": Says(raw=plain + b" " * MAX_REPLY_BYTES),
    }
    statuses = (307, 400, 401, 402, 403, 404, 408, 413, 422, 429, 500, 503)
    errors = {f"{status}": error(status, message=text, code=text, param=text, type=text) for status in statuses}
    return successes | errors | {
        "temperature": error(400, message=f"temperature {text}"),
        "max_tokens": error(400, message=f"max_tokens {text}", param="max_tokens"),
        "too large": error(400, message=f"max_tokens too large {text}"),
        "quota": error(429, message=text, code="insufficient_quota"),
        "model": error(400, message=text, code="model_not_found"),
        "unsupported": error(400, message=text, code=f"unsupported_{text}"),
        "error text": Says(status=400, raw=json.dumps({"error": text}).encode()),
        "detail": Says(status=422, raw=json.dumps({"detail": [{"msg": text}]}).encode()),
        "HTML": Says(status=503, raw=b"<html>" + plain),
        "retry-after": Says("x", status=503, headers={"retry-after": text}),
        "location": Says("x", status=308, headers={"location": f"http://h/{text}?{text}"}),
    }  # fmt: skip


def leaks(shown: str) -> list[str]:
    """Pieces of the key in what was shown, in any of the forms."""
    pieces = [KEY[at : at + WINDOW] for at in range(len(KEY) - WINDOW + 1)]
    whole = base64.b64encode(KEY.encode()).decode()
    forms = [(piece, form(piece)) for piece in pieces for form in FORMS.values()]
    found = [piece for piece, written in forms if written in shown or written.lower() in shown]
    return found + [whole[at : at + 8] for at in range(len(whole) - 8) if whole[at : at + 8] in shown]


@pytest.mark.parametrize("field", echoes("x"))
def test_no_part_of_the_key_gets_out_of_any_field(field: str, caplog: pytest.LogCaptureFixture):
    said = {form: f"key: {write(KEY)} or {write(KEY[5:])[:-3]} or {base64.b64encode(KEY.encode()).decode()}"
            for form, write in FORMS.items()}  # fmt: skip
    with caplog.at_level(logging.DEBUG, logger="dschat"):
        for form in FORMS:
            answer, asked = answer_to(lambda asked, text=said[form]: echoes(text)[field], max_retries=0)
            assert asked[0].headers["authorization"] == f"Bearer {KEY}"
            assert not leaks(repr(answer)), form
            assert not leaks(str(answer.ends_run)), form
    assert not leaks("\n".join(record.getMessage() for record in caplog.records if record.name.startswith("dschat")))


@pytest.mark.parametrize("status", [200, 307, 400, 401, 402, 404, 429, 503])
def test_no_part_of_the_key_is_left_at_any_offset(status: int):
    """Texts are cut at 300 characters in messages and at 20,000 in the record."""
    with judge_server(lambda asked: Says()) as server:
        for length in range(270, 305):
            text = "x" * length + KEY + "y" * 400
            says = Says(raw=text.encode()) if status == 200 else Says(text, status=status, headers={"location": text})
            server.script = lambda asked, says=says: says
            answer = ask(judge_at(server))
            assert not leaks(repr(answer)) and "xxxx" in answer.problem
    if status == 200:
        with judge_server(lambda asked: Says("x" * int(asked.second) + KEY)) as server:
            judge = judge_at(server)
            for length in range(KEPT_CHARACTERS - len(KEY) - 2, KEPT_CHARACTERS + 2):
                answer = judge.ask(CRITERIA, prompt="p", first="a", second=str(length))
                assert not leaks(repr(answer)) and len(answer.replies[0]) <= KEPT_CHARACTERS


def test_a_waiting_question_is_logged_without_the_key(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="dschat"):
        answer_to(lambda asked: Says(f"busy {KEY} \x1b[2J", status=503, headers={"retry-after": "0"}), max_retries=1)
    said = [record.getMessage() for record in caplog.records if record.name == "dschat.judging.judges"]
    assert said == ["status 503: busy ••• \\x1b[2J; trying again in 0.0 s"]


def test_what_is_secret_in_the_address_gets_nowhere():
    with judge_server(lambda asked: Says("echo pass-word-7 and tok-en-99", status=500)) as server:
        url = server.url.replace("http://", "http://name:pass-word-7@") + "?token=tok-en-99"
        judge = OpenAIJudge(
            model="judge", api_key=None, base_url=url, timeout=5, max_tokens=16, max_retries=0, budget=Budget(None)
        )
        failed = ask(judge)
    gone = ask(judge)
    for answer in (failed, gone):
        assert not [word for word in ("pass-word", "tok-en", "name:") if word in repr(answer)]
    assert "http://127.0.0.1" in gone.problem


def test_questions_wait_for_the_first_reply_and_then_go_side_by_side():
    together = threading.Barrier(4, timeout=10)

    def script(asked: Asked) -> Says:
        if asked.first != "first":
            together.wait()
        return Says("A")

    with judge_server(script) as server:
        judge = judge_at(server)
        ask(judge, "first")
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda row: ask(judge, f"a{row}"), range(4)))
    assert {answer.status for answer in answers} == {"judged"}


def test_threads_share_a_budget():
    budget, refused = Budget(50), []

    def take() -> None:
        for _ in range(20):
            try:
                budget.take()
            except BudgetUsedUp:
                refused.append(1)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(refused) == 30
    Budget(None).take()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("2.5", 2.5),
        ("99999", LONGEST_RETRY_AFTER_SECONDS),
        ("soon", None),
        ("nan", None),
        ("1e400", None),
        (formatdate(1030), 30.0),
    ],
)
def test_a_server_says_how_long_to_wait_in_seconds_or_by_a_date(value: str | None, seconds: float | None):
    headers = {} if value is None else {"retry-after": value}
    assert _retry_after(headers, now=lambda: 1000.0) == seconds

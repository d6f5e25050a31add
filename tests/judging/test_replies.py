"""Replies in every form that judges give them: a verdict is read where it can mean nothing else, and nowhere else."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dschat.judging.replies import KEPT_CHARACTERS, NotWhole, ServerError, parse_reply, read_completion
from dschat.judging.transport import MAX_REPLY_BYTES, RawReply

PROSE = "Summary A is short. Summary B invents a date, and an E. coli outbreak."
READ = {
    # a letter and what stands around it
    "A": "A", "B": "B", "E": "E", " A \n": "A", "A.": "A", "(A)": "A", "[B]": "B", "{B}": "B", "<A>": "A", "A)": "A",
    "A:": "A", "A!": "A", "'A'": "A", '"B".': "B", "`A`": "A", "*A*": "A", "**A**": "A", "**A.**": "A", "__B__": "B",
    "- A": "A", "> B": "B", "# A": "A", "A\n\n": "A", "```\nA\n```": "A", "```text\nB\n```": "B", "\\boxed{A}": "A",
    "$\\boxed{\\text{B}}$.": "B", "<answer>A</answer>": "A", "<verdict>\nB\n</verdict>": "B", "A<|im_end|>": "A",
    "[[A]]": "A", '["A"]': "A",
    # other languages' punctuation
    "“A”": "A", "‘B’": "B", "„A“": "A", "«A»": "A", "‹B›": "B", "「A」": "A", "『B』": "B", "《A》": "A", "【B】": "B",
    "Ａ": "A", "Ａ。": "A", "（Ｂ）": "B", "A！": "A", "A、": "A",
    # with a label
    "Answer: A": "A", "answer : B": "B", "ANSWER: A": "A", "Answer：A": "A", "**Answer:** A": "A",
    "**Answer**: **B**": "B",
    "Answer = A": "A", "Verdict: (A)": "A", "Final verdict: B.": "B", "My choice: E": "E", "Choice: A": "A",
    "The answer is A.": "A", "The verdict is **B**.": "B", "So, the final answer is: A": "A", "Winner: Summary A": "A",
    "The better summary is B.": "B", "Best reply: reply A": "A", "Judgment: A": "A", "Judgement: B": "B",
    "Thus the correct answer is \\boxed{B}": "B", "### Final answer: B": "B",
    # reasoning before or behind it
    f"{PROSE}\n\nA": "A", f"{PROSE}\n\n**B**": "B", f"{PROSE}\nAnswer: A": "A", f"A\n\n{PROSE}": "A",
    f"Verdict: B\n{PROSE}": "B", f"Answer: A\n{PROSE}\nAnswer: A": "A", f"{PROSE}\r\n\r\nA\r\n": "A",
    "A\n- short\nB\n- invents\n\nFinal answer: A": "A",
    # thinking
    "<think>\nSummary A is short.\n</think>\n\nB": "B", "<think></think>A": "A", "thinking: B?\n</think>\nA": "A",
    "<think>B</think>A": "A", "<think>\nAnswer: B\n</think>\nAnswer: A": "A", "<thinking>B!</thinking>\n\nA": "A",
    "<THINK>x</THINK>B": "B", "<thought>x</thought>A": "A", "<reasoning>x</reasoning>\n**A**": "A",
    "[THINK]B[/THINK]A": "A", "◁think▷B◁/think▷A": "A", "<think>a</think><think>b</think>A": "A",
    "<|channel|>analysis<|message|>B<|end|><|start|>assistant<|channel|>final<|message|>A<|return|>": "A",
    '<think>{"choice": "B"}</think>{"comparison": "x", "choice": "A"}': "A",
    # objects
    '{"comparison": "x", "choice": "A"}': "A", '{"choice": "B"}': "B", '{"choice": " A "}': "A",
    '{"choice": "**A**"}': "A", '{"choice": "reply_A"}': "A", '{"choice": "Summary B"}': "B",
    '```json\n{"comparison": "x", "choice": "A"}\n```': "A", '```\n{"choice": "A"}\n```': "A",
    'Here it is:\n\n{"comparison": "has {braces} and \\"A\\"", "choice": "B"}\n': "B",
    'Here it is: ```json\n{"choice": "A"}\n```': "A", '{"comparison": null, "choice": "A", "confidence": 0.9}': "A",
    '{"a": {"choice": "B"}}\n{"choice": "A"}': "A",
}  # fmt: skip
UNREAD = [
    "", " \n", ".", "C", "AB", "A B", "A/B", "A or B", "a", "b", "1", "Tie", "neither", "both", "A?", "ABBA", "Apple",
    "А",  # Cyrillic
    "A is better", "A better one", "Summary A is better because", "Summary A", "A: short. B: long.", "I prefer A",
    "A\nB", "A\n\nB\n", f"A\n{PROSE}\nB", f"Answer: A\n{PROSE}\nAnswer: B", f"{PROSE}\nA\n{PROSE}",
    "Wrong answer: A", "Worst answer: B", "Loser: A", "The answer is not A", "Answer: not A", "Answer: A or B",
    "Answer: A good summary", "The answer is a", "Rejected: B", "Longer: A", "Grade: A", "Vitamin: E", "Answer:",
    "I cannot decide between A and B.", "Neither A nor B", "A-", "A+", "A minus", "E-mail", "B2",
    # thinking that did not end, or said everything
    "<think>", "<think>A", "<think>\nA\n", "<think>A</think>", "<think>x</think><think>A", "A</think>", "[THINK]A",
    "<think>x</think>A or B", "<|channel|>analysis<|message|>A",
    # objects
    "{}", "[]", "null", '"', '{"choice": "C"}', '{"choice": null}', '{"choice": ["A"]}', '{"choice": 1}',
    '{"choice": "A or B"}', '{"comparison": "x"}', '{"comparison": "cut off', '{"comparison": "x", "choice": "A"',
    '{"choice": "A"} {"choice": "B"}', '{"choice": "A", "choice": "B"}', '{"choice": "A"}\nOr perhaps B.',
    '{"winner": "A"}', '{"choice": "not A"}',
]  # fmt: skip


@pytest.mark.parametrize(("text", "choice"), READ.items())
def test_verdicts_that_can_be_read(text: str, choice: str):
    reply = parse_reply(text)
    assert reply is not None and reply.choice == choice


@pytest.mark.parametrize("text", UNREAD)
def test_everything_else_is_no_verdict(text: str):
    assert parse_reply(text) is None


def test_comparison_is_kept_where_there_is_one():
    assert parse_reply('{"comparison": "A is short", "choice": "A"}').comment == "A is short"
    assert parse_reply('{"comparison": 5, "choice": "A"}').comment is None
    assert parse_reply("A").comment is None


@given(st.lists(st.sampled_from("A B E is better than or and not the summary answer , . ! ( )".split())))
def test_a_letter_among_words_is_no_verdict(words: list[str]):
    reply = parse_reply(" ".join(words))
    letters = [word for word in words if word.isalpha()]
    assert (reply.choice if reply else None) == (letters[0] if letters in (["A"], ["B"], ["E"]) else None)


@pytest.mark.parametrize(
    "text",
    ["{" * 10**6, '{"a":' * 4_000, "[" * 10**6, "\n" * 10**6, "A\n" * 500_000, " " * 10**6 + "A", "<" * 10**6,
     "<think>" * 100_000, "</think>" * 100_000, "*" * 10**6, "#-" * 10_000, "Answer: " * 2_400, '{"choice":"' * 1_800],
    ids=lambda text: text[:10],
)  # fmt: skip
def test_hostile_replies_take_a_moment(text: str):
    began = time.process_time()
    parse_reply(text)
    assert time.process_time() - began < 2


def test_a_long_reply_is_no_verdict_but_long_thinking_before_one_is():
    assert parse_reply("word " * KEPT_CHARACTERS + "\nA") is None
    assert parse_reply("<think>" + "word " * KEPT_CHARACTERS + "</think>A").choice == "A"


# --- from bytes to words


def raw(value: Any, status: int = 200, *, whole: bool = True) -> RawReply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return RawReply(status, {}, body, whole=whole)


def completion(content: Any, **choice: Any) -> RawReply:
    message = {"role": "assistant", "content": content}
    return raw({"choices": [{"message": message, "finish_reason": "stop"} | choice]})


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("A", "A"),
        ([{"type": "text", "text": "A"}], "A"),
        ([{"type": "text", "text": "The answer"}, {"type": "text", "text": " is A"}], "The answer is A"),
        ([{"type": "thinking", "thinking": [{"type": "text", "text": "B"}]}, {"type": "text", "text": "A"}], "A"),
        ([{"type": "reasoning", "text": "B"}, {"type": "output_text", "text": "A"}], "A"),
        ([{"text": "A"}], "A"),
        (["A"], "A"),
        ([5, None, [], {"type": "text", "text": None}, {"type": "image_url"}, "A"], "A"),
    ],
)
def test_content_is_joined_from_its_text_parts(content: Any, text: str):
    assert read_completion(completion(content)).text == text


@pytest.mark.parametrize("content", [None, "", [], [5], 5, 5.5, True, {"text": "A"}, [[{"text": "A"}]], "\ud800" * 0])
def test_content_of_another_shape_is_no_text_and_the_reply_is_kept(content: Any):
    found = read_completion(completion(content))
    assert found.text == "" and not found.refused and not found.cut
    assert json.loads(found.kept)["choices"][0]["message"]["content"] == content


@pytest.mark.parametrize("choices", ["text", {"a": 1}, [5], [None], [{}], [{"message": None}], [{"message": "A"}], 7])
def test_choices_of_another_shape_are_a_reply_that_cannot_be_read(choices: Any):
    found = read_completion(raw({"choices": choices}))
    assert found.text == "" and json.loads(found.kept) == {"choices": choices}


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>busy</html>", b"[]", b"5", b"null", b'{"choices": [{"mess', b"[" * 200_000, b"\xff\xfe\x00", b"{}",
     b'{"choices": null}', b'{"choices": []}', b'{"error": null}', b'{"usage": ' + b"9" * 5_000 + b"}"],
)  # fmt: skip
def test_a_success_without_a_reply_is_not_whole(body: bytes):
    with pytest.raises(NotWhole):
        read_completion(raw(body))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-8-sig", "utf-32"])
def test_every_encoding_of_json_is_read(encoding: str):
    assert read_completion(raw(completion("é A").body.decode().encode(encoding))).text == "é A"


def test_bytes_and_surrogates_that_no_file_takes_are_replaced():
    assert read_completion(completion("A\ud800")).text == "A?"
    assert read_completion(raw(b'{"choices": [{"message": {"content": "A\xff"}}]}')).text == "A\ufffd"


def test_refusals_and_cut_replies_are_told_apart():
    refusal = raw({"choices": [{"message": {"content": None, "refusal": "I cannot"}, "finish_reason": "stop"}]})
    assert (read_completion(refusal).refused, read_completion(refusal).kept) == (True, "I cannot")
    number = raw({"choices": [{"message": {"content": "A", "refusal": 5}}]})
    assert (read_completion(number).refused, read_completion(number).text) == (False, "A")
    assert read_completion(completion("", finish_reason="length")).cut
    assert not read_completion(completion("A", finish_reason=["length"])).cut


def test_a_reply_beyond_the_limit_of_bytes_keeps_its_beginning():
    found = read_completion(raw(b'{"choices": ' + b"x" * MAX_REPLY_BYTES, whole=False))
    assert (found.text, found.too_long) == ("", True) and found.kept.startswith('{"choices": xxx')


@pytest.mark.parametrize(
    ("body", "message", "code", "parameter"),
    [
        ({"error": {"message": "no", "code": "c", "param": "p"}}, "no", "c", "p"),
        ({"error": {"message": "no", "code": 5, "param": None}}, "no", "", ""),
        ({"error": "no"}, "no", "", ""),
        ({"message": "no", "code": "c"}, "no", "c", ""),
        ({"detail": "no"}, "no", "", ""),
        ([{"error": {"message": "no"}}], "no", "", ""),
        (b"<p>no</p>", "<p>no</p>", "", ""),
        ({"error": {"message": ["no"]}}, '{"error": {"message": ["no"]}}', "", ""),
        (b"", "", "", ""),
    ],
)
def test_errors_of_every_shape_say_why(body: Any, message: str, code: str, parameter: str):
    with pytest.raises(ServerError) as found:
        read_completion(raw(body, 400))
    error = found.value
    assert (error.status, error.message, error.code, error.parameter) == (400, message, code, parameter)


@pytest.mark.parametrize(("code", "status"), [(402, 402), (502, 502), ("busy", 500), (7, 500), (True, 500)])
def test_an_error_in_place_of_a_reply_has_its_own_status(code: Any, status: int):
    with pytest.raises(ServerError) as found:
        read_completion(raw({"error": {"message": "no", "code": code}}))
    assert found.value.status == status

"""One request: what is sent, and what is read of a reply, within a number of bytes and of seconds."""

from __future__ import annotations

import time
from typing import Any

import pytest

from dschat.judging.transport import MAX_REPLY_BYTES, Connection, NoReply, RawReply
from tests.judging.judge_server import Asked, Says, Script, judge_server

QUESTION = {"role": "user", "content": "<summary_A>\nx\n</summary_A>\n<summary_B>\ny\n</summary_B>"}


def reply_to(script: Script, *, seconds: float = 5.0, **parameters: Any) -> tuple[RawReply, Asked]:
    """What comes back of one request, and the request."""
    with judge_server(script) as server:
        connection = Connection(api_key="key", base_url=server.url, seconds=seconds)
        raw = connection.complete({"model": "m", "messages": [QUESTION], **parameters})
    return raw, server.asked[0]


def test_the_request_holds_what_it_was_given_and_no_more() -> None:
    raw, asked = reply_to(lambda asked: Says("A", headers={"x-test": "1"}), max_tokens=7)
    assert asked.body == {"model": "m", "messages": [QUESTION], "max_tokens": 7}
    assert asked.headers["authorization"] == "Bearer key" and asked.headers["accept-encoding"] == "identity"
    assert (raw.status, raw.whole, raw.headers["x-test"]) == (200, True, "1") and b'"A"' in raw.body


@pytest.mark.parametrize("status", [200, 201, 307, 400, 401, 404, 429, 500, 503])
def test_a_reply_of_every_status_is_a_reply(status: int) -> None:
    raw, _ = reply_to(lambda asked: Says(status=status, raw=b"words", headers={"location": "http://else/"}))
    assert raw == RawReply(status, raw.headers, b"words", whole=True)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("size", [MAX_REPLY_BYTES, MAX_REPLY_BYTES + 1, 100 * MAX_REPLY_BYTES])
def test_no_more_than_a_mebibyte_is_read(size: int, status: int) -> None:
    raw, _ = reply_to(lambda asked: Says(status=status, raw=b"x" * size), seconds=60)
    assert (len(raw.body), raw.whole) == (MAX_REPLY_BYTES, size == MAX_REPLY_BYTES)


def test_a_body_that_drips_ends_at_the_deadline() -> None:
    began = time.monotonic()
    with pytest.raises(NoReply, match=r"^no whole reply within 0\.5 s$"):
        reply_to(lambda asked: Says("A", drip=0.05), seconds=0.5)
    assert time.monotonic() - began < 3


def test_silence_ends_at_the_deadline_and_a_closed_port_at_once() -> None:
    with pytest.raises(NoReply, match=r"no whole reply within 0\.5 s"):
        reply_to(lambda asked: Says("A", delay=3.0), seconds=0.5)
    with judge_server(lambda asked: Says("A")) as server:
        connection = Connection(api_key="key", base_url=server.url, seconds=5)
    with pytest.raises(NoReply, match="Connection refused"):
        connection.complete({"model": "m", "messages": [QUESTION]})


def test_what_is_compressed_is_not_unpacked() -> None:
    with pytest.raises(NoReply, match=r"compressed \(gzip\)"):
        reply_to(lambda asked: Says(raw=b"\x1f\x8b", headers={"content-encoding": "gzip"}))


def test_a_server_that_sends_questions_on_is_not_followed() -> None:
    with judge_server(lambda asked: Says("B")) as other:
        raw, _ = reply_to(lambda asked: Says(status=308, headers={"location": f"{other.url}/chat/completions"}))
        assert raw.status == 308 and other.asked == []

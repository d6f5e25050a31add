"""One request to a server: bounded in bytes and in time, whatever the server does."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dschat.judging.transport import MAX_REPLY_BYTES, Connection, NoReply

Answer = Callable[[BaseHTTPRequestHandler], None]
QUESTION = {"model": "judge", "messages": [{"role": "user", "content": "?"}]}


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """A server that answers every request alike; yields its address."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            answer(self)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_address[1]}/v1"
        found.shutdown()


def send(handler: BaseHTTPRequestHandler, body: bytes, *, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in {"Content-Type": "application/json", **headers}.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def ask(answer: Answer, *, seconds: float = 20.0):
    with server(answer) as url:
        return Connection(api_key="key", base_url=url, seconds=seconds).complete(QUESTION)


@pytest.mark.parametrize("status", [200, 404, 500])
def test_what_a_server_says_comes_through_whatever_its_status(status: int) -> None:
    reply = ask(lambda handler: send(handler, b"no JSON at all", status=status, Retry_After="7"))
    assert (reply.status, reply.body, reply.whole) == (status, b"no JSON at all", True)
    assert reply.headers["retry-after"] == "7"


def test_no_more_bytes_are_kept_than_the_bound() -> None:
    assert ask(lambda handler: send(handler, b" " * MAX_REPLY_BYTES)).whole
    reply = ask(lambda handler: send(handler, b" " * (MAX_REPLY_BYTES + 1)))
    assert len(reply.body) == MAX_REPLY_BYTES and not reply.whole


def test_a_server_that_drips_is_given_up_in_time() -> None:
    def drip(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(100):
            time.sleep(0.1)
            try:
                handler.wfile.write(b" ")
            except OSError:
                return

    started = time.monotonic()
    with pytest.raises(NoReply, match=r"no whole reply within 0\.5 s"):
        ask(drip, seconds=0.5)
    assert time.monotonic() - started < 8


def test_nobody_is_followed_and_nothing_is_unpacked() -> None:
    reply = ask(lambda handler: send(handler, b"", status=307, Location="http://127.0.0.1:1/v1/chat/completions"))
    assert reply.status == 307
    with pytest.raises(NoReply, match="compressed"):
        ask(lambda handler: send(handler, gzip.compress(b"{}"), Content_Encoding="gzip"))
    with pytest.raises(NoReply):
        Connection(api_key="key", base_url="http://127.0.0.1:1/v1", seconds=5.0).complete(QUESTION)

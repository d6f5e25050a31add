"""A local server that speaks the chat-completions protocol, scripted by the test."""

from __future__ import annotations

import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_SHOWN = re.compile(r"<(?:summary|reply|answer)_([AB])>\n(.*?)\n</", re.DOTALL)


@dataclass(frozen=True)
class Asked:
    """One request."""

    body: dict[str, Any]
    first: str
    """The answer shown first."""
    second: str
    attempt: int
    """How many requests with these two answers in this order came before, this one included."""
    headers: dict[str, str]
    at: float
    """Seconds on the monotonic clock."""


@dataclass(frozen=True)
class Says:
    """One response."""

    text: str | None = "A"
    """Content of the message."""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    refusal: str | None = None
    delay: float = 0.0
    raw: bytes | None = None
    """Sent in place of a completion."""
    code: str | None = None
    """Of an error."""
    param: str | None = None
    """The parameter that an error blames."""
    finish_reason: str = "stop"
    drip: float | None = None
    """Seconds before each byte of the body."""


Script = Callable[[Asked], Says]


class JudgeServer(ThreadingHTTPServer):
    """Answers every request as its script says, and remembers all of them."""

    daemon_threads = True
    block_on_close = False  # a client that was killed must not hold up the test

    def __init__(self, script: Script) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.script = script
        self.asked: list[Asked] = []
        self.answered: Counter[tuple[str, str]] = Counter()
        """Successful responses that were sent whole, by the two answers in order."""
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        """The base URL for a client."""
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""


@contextmanager
def judge_server(script: Script) -> Iterator[JudgeServer]:
    """Run a server in a thread while the block lasts."""
    server = JudgeServer(script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        shown = dict(_SHOWN.findall(body["messages"][0]["content"]))
        with self.server.lock:
            before = sum((each.first, each.second) == (shown["A"], shown["B"]) for each in self.server.asked)
            asked = Asked(body, shown["A"], shown["B"], before + 1, dict(self.headers.items()), time.monotonic())
            self.server.asked.append(asked)
        says = self.server.script(asked)
        if says.delay:
            time.sleep(says.delay)
        content = says.raw if says.raw is not None else json.dumps(_body(says)).encode()
        self.send_response(says.status)
        for name, value in {"content-type": "application/json", "content-length": str(len(content))}.items():
            self.send_header(name, value)
        for name, value in says.headers.items():
            self.send_header(name, value)
        self.end_headers()
        for piece in [content] if says.drip is None else [bytes([byte]) for byte in content]:
            time.sleep(says.drip or 0)
            self.wfile.write(piece)
            self.wfile.flush()
        if says.status == 200:
            with self.server.lock:
                self.server.answered[asked.first, asked.second] += 1

    def log_message(self, *arguments: object) -> None:
        """Nothing on the screen."""


def message(content: Any, finish_reason: str = "stop", **more: Any) -> Says:
    """A completion whose message holds anything at all."""
    choice = {"index": 0, "message": {"role": "assistant", "content": content, **more}, "finish_reason": finish_reason}
    return Says(raw=json.dumps({"id": "x", "object": "chat.completion", "choices": [choice]}).encode())


def _body(says: Says) -> dict[str, Any]:
    if says.status != 200:
        return {"error": {"message": says.text or "broken", "type": "error", "param": says.param, "code": says.code}}
    message = {"role": "assistant", "content": says.text, "refusal": says.refusal}
    return {
        "id": "x", "object": "chat.completion", "created": 0, "model": "judge",
        "choices": [{"index": 0, "message": message, "finish_reason": says.finish_reason, "logprobs": None}],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    }  # fmt: skip

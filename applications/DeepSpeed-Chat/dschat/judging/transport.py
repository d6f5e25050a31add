"""One request to a chat-completions server through the official client: bounded in bytes and in time.

The client's own retries are off and it follows no redirect: every request is counted against a budget, goes to the
server that the user named, and what happens between two of them is decided elsewhere.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from dschat.errors import UserError

MAX_REPLY_BYTES = 2**20
"""Of a reply's body; what comes after them is not read."""


@dataclass(frozen=True)
class RawReply:
    """What a server sent, whatever its status."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    """At most MAX_REPLY_BYTES."""
    whole: bool
    """Whether that is all of it."""


class NoReply(Exception):
    """A request without a reply; its text says why."""


class Connection:
    """A server that speaks the chat-completions protocol. Threads may share it."""

    def __init__(self, *, api_key: str, base_url: str | None, seconds: float) -> None:
        """
        Args:
            api_key: sent with every request.
            base_url: None for OpenAI's own.
            seconds: from a request's start to its reply's last byte, whatever the server does in between.
        Raises:
            UserError: the client is not installed.
        """
        self._openai = _client_library()
        self._seconds = seconds
        self._client = self._openai.OpenAI(
            api_key=api_key,
            base_url=base_url,
            timeout=seconds,
            max_retries=0,
            http_client=_bounded_client(self._openai, seconds),
            # what unpacks to more than it is cannot be bounded by its bytes
            default_headers={"Accept-Encoding": "identity"},
        )
        self.base_url = str(self._client.base_url)
        """Where requests go."""

    def complete(self, parameters: Mapping[str, Any]) -> RawReply:
        """Ask for a completion; NoReply where none came, or not in time.

        Args:
            parameters: the request's content, with `model` and `messages`.
        """
        openai = self._openai
        try:
            response = self._client.chat.completions.with_raw_response.create(**parameters).http_response
        except openai.APIStatusError as error:
            response = error.response
        except (openai.APIConnectionError, TimeoutError, _Compressed) as error:
            cause = error.__cause__ or error
            if isinstance(error, openai.APITimeoutError | TimeoutError) or isinstance(cause, TimeoutError):
                raise NoReply(f"no whole reply within {self._seconds:g} s") from error
            raise NoReply(str(cause) or type(cause).__name__) from error
        body = response.content
        return RawReply(
            response.status_code, response.headers, body[:MAX_REPLY_BYTES], whole=len(body) <= MAX_REPLY_BYTES
        )


class _Compressed(Exception):
    """The server compressed its reply though it was asked not to."""


def _bounded_client(openai: Any, seconds: float) -> Any:
    """An HTTP client whose responses are read to their end, to the byte after the bound, or to the deadline."""

    class BoundedClient(openai.DefaultHttpxClient):  # a class of whichever library the installed client builds on
        def send(self, request: Any, **_: Any) -> Any:  # the options are about streams, redirects and other credentials
            deadline = time.monotonic() + seconds
            return _within(seconds, lambda: _read(super(BoundedClient, self).send(request, stream=True), deadline))

    return BoundedClient(follow_redirects=False, timeout=seconds)


def _read(response: Any, deadline: float) -> Any:
    """The same response with its body in memory, up to one byte beyond the bound."""
    try:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise _Compressed(f"the reply is compressed ({encoding}) though that was not asked for")
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk[: MAX_REPLY_BYTES + 1 - len(body)]
            if len(body) > MAX_REPLY_BYTES:
                break
            if time.monotonic() > deadline:
                raise TimeoutError
    finally:
        response.close()
    framing = ("content-length", "transfer-encoding")
    headers = [(name, value) for name, value in response.headers.multi_items() if name not in framing]
    return type(response)(response.status_code, headers=headers, content=bytes(body), request=response.request)


def _within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns; TimeoutError after so many seconds, in which it may be stuck anywhere.

    A client's own timeouts each begin again with every byte.
    """
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the result is waited for
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result(seconds)


def _client_library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise UserError(
            "the openai client is not installed; pip install 'dschat[eval]', or pass --judge reward-model"
        ) from error
    return openai

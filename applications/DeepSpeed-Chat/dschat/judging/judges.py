"""Asking a language model for verdicts over the chat-completions protocol, with the official client.

The client's own retries are off: here every request is counted against the budget, and what happens between two of them
is ours to decide and to test.
"""

from __future__ import annotations

import email.utils
import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dschat.errors import UserError
from dschat.judging.criteria import Criteria, Reply, parse_reply

if TYPE_CHECKING:
    import openai

logger = logging.getLogger(__name__)

ASKS = 2
"""A reply that cannot be read is followed by one reminder."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
QUOTA_USED_UP = "insufficient_quota"
ERROR_LENGTH = 300


class BudgetUsedUp(Exception):
    """No further request may be made in this run."""


class Stopped(Exception):
    """The run was stopped while a question waited for its next attempt."""


class Budget:
    """A number of requests that threads share."""

    def __init__(self, requests: int | None) -> None:
        """`requests`: how many may be made, None for any number."""
        self._left = requests
        self._lock = threading.Lock()

    def take(self) -> None:
        """Count a request that is about to be made; BudgetUsedUp where none is left."""
        with self._lock:
            if self._left is None:
                return
            if self._left == 0:
                raise BudgetUsedUp
            self._left -= 1


@dataclass(frozen=True)
class Answer:
    """What a judge said, or why it said nothing that counts."""

    reply: Reply | None
    replies: tuple[str, ...]
    """Every reply as it came."""
    problem: str | None
    """Why there is no verdict."""
    reachable: bool
    """False where the last request got no reply at all."""
    requests: int


class _Unanswered(Exception):
    """A request that failed for good; its text says why."""


class OpenAIJudge:
    """A judge behind any server that speaks the protocol. Threads may share it."""

    def __init__(
        self, *, model: str, api_key: str, base_url: str | None, timeout: float, max_retries: int, budget: Budget
    ) -> None:
        """
        Args:
            model: the judge's name at the server.
            api_key: sent with every request, never written anywhere.
            base_url: None for OpenAI's own.
            timeout: seconds until a request is given up.
            max_retries: attempts after the first one, per request that fails in a way that may pass.
            budget: shared by all requests.
        Raises:
            UserError: the client is not installed.
        """
        openai = _client_library()
        self._client = openai.OpenAI(api_key=api_key, base_url=base_url, timeout=timeout, max_retries=0)
        self.name = model
        self._api_key = api_key
        self._max_retries = max_retries
        self._budget = budget
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let no question wait for another attempt."""
        self._stopping.set()

    def ask(self, criteria: Criteria, *, prompt: str, first: str, second: str) -> Answer:
        """Ask which of two answers is better.

        Raises:
            BudgetUsedUp, Stopped: before anything was sent.
            UserError: the server refuses the key or does not know the model.
        """
        messages = [{"role": "user", "content": criteria.question(prompt=prompt, first=first, second=second)}]
        replies: list[str] = []
        calls = _Calls()
        for _ in range(ASKS):
            try:
                text, refused = self._complete(messages, criteria.max_tokens, calls)
            except (_Unanswered, BudgetUsedUp, Stopped) as error:
                if isinstance(error, BudgetUsedUp | Stopped) and not calls.made:
                    raise
                problem = str(error) or "the run ended before the judge was asked again"
                return Answer(None, tuple(replies), problem, reachable=False, requests=calls.made)
            replies.append(text)
            reply = None if refused else parse_reply(text)
            if reply is not None:
                return Answer(reply, tuple(replies), None, reachable=True, requests=calls.made)
            messages += [{"role": "assistant", "content": text}, {"role": "user", "content": criteria.reminder}]
        problem = "the judge refused" if refused else "the reply is no verdict"
        return Answer(None, tuple(replies), problem, reachable=True, requests=calls.made)

    def _complete(self, messages: list[dict[str, str]], max_tokens: int, calls: _Calls) -> tuple[str, bool]:
        """The reply's text, and whether it is a refusal; retried while that may help."""
        failures = 0
        while True:
            if self._stopping.is_set():
                raise Stopped
            self._budget.take()
            calls.made += 1
            try:
                return self._request(messages, max_tokens)
            except _Passing as error:
                failures += 1
                if failures > self._max_retries:
                    raise _Unanswered(f"{error} ({failures} attempts)") from error
                seconds = error.retry_after if error.retry_after is not None else _backoff(failures)
                logger.info("%s; trying again in %.1f s", error, seconds)
                self._stopping.wait(seconds)

    def _request(self, messages: list[dict[str, str]], max_tokens: int) -> tuple[str, bool]:
        """One request.

        Raises:
            _Passing: it may work another time.
            _Unanswered: it will not, but another question may.
            UserError: no question will.
        """
        openai = _client_library()
        try:
            completion = self._client.chat.completions.create(
                model=self.name, messages=messages, temperature=0, max_tokens=max_tokens
            )
        except openai.APIStatusError as error:
            raise self._sorted(error) from error
        except openai.APIConnectionError as error:  # timeouts too
            raise _Passing(f"no reply from {self._client.base_url} ({error})") from error
        except (openai.APIError, ValueError) as error:
            raise _Passing(f"the server's reply is not whole ({_short(error)})") from error
        return _text_of(completion)

    def _sorted(self, error: openai.APIStatusError) -> Exception:
        """What a status other than success means for this question and for the run."""
        # some servers repeat the key
        status, said = error.status_code, _short(error).replace(self._api_key, "***")
        match status:
            case 401 | 403:
                return UserError(f"{self._client.base_url} refused the API key ({said}); check OPENAI_API_KEY")
            case 404:
                return UserError(
                    f"{self._client.base_url} knows no judge {self.name} ({said}); check --judge_model and --base_url"
                )
            case 429 if error.code == QUOTA_USED_UP:
                return UserError(f"the account's quota is used up ({said}); verdicts so far are kept, rerun to go on")
        if status in (408, 409, 429) or status >= 500:
            return _Passing(f"status {status}: {said}", retry_after=_retry_after(error.response.headers))
        return _Unanswered(f"status {status}: {said}")


@dataclass
class _Calls:
    """Requests made for one question."""

    made: int = 0


class _Passing(Exception):
    """A failure that may pass."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


def _text_of(completion: Any) -> tuple[str, bool]:
    """The text of a completion's only choice, and whether it is a refusal; _Passing where there is none."""
    choices = getattr(completion, "choices", None)
    if not choices or choices[0].message is None:
        raise _Passing("the server's reply holds no message")
    message = choices[0].message
    refusal = getattr(message, "refusal", None)
    text = message.content or refusal or ""
    return text.encode("utf-8", "replace").decode("utf-8"), bool(refusal)


def _retry_after(headers: Any, now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait, None where it does not say; at most ten minutes."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except ValueError:
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS)


def _backoff(failures: int) -> float:
    """Seconds before the next attempt: doubling, with jitter so that threads do not return together."""
    longest = min(FIRST_WAIT_SECONDS * 2 ** (failures - 1), LONGEST_WAIT_SECONDS)
    return longest * random.uniform(0.5, 1.0)


def _short(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text[:ERROR_LENGTH] or type(error).__name__


def _client_library() -> Any:
    try:
        import openai
    except ImportError as error:
        raise UserError(
            "the openai client is not installed; pip install 'dschat[eval]', or pass --judge reward-model"
        ) from error
    return openai

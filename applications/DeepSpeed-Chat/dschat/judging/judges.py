"""Asking a language model for verdicts over the chat-completions protocol.

Every request is counted against the budget; which failures pass, which concern one question and which the whole run is
decided here. The first reply of a run is waited for alone: what the server cannot take, or will not answer at all, is
found out at the price of one request.
"""

from __future__ import annotations

import email.utils
import logging
import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from dschat.errors import UserError
from dschat.judging.criteria import Criteria
from dschat.judging.redaction import Secrets, printable, shown_url, url_secrets
from dschat.judging.replies import (
    KEPT_CHARACTERS,
    Completion,
    NotWhole,
    Reply,
    ServerError,
    after_thinking,
    parse_reply,
    read_completion,
)
from dschat.judging.transport import MAX_REPLY_BYTES, Connection, NoReply
from dschat.judging.verdicts import Status

logger = logging.getLogger(__name__)

ASKS = 2
"""A reply that cannot be read is followed by one reminder."""
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
LONGEST_RETRY_AFTER_SECONDS = 600.0
QUOTA_USED_UP = "insufficient_quota"
ERROR_CHARACTERS = 300
REFUSALS_BEFORE_ANY_REPLY = 5
"""Questions that a server may refuse, for reasons of each one's own, before the run is given up."""
NOTHING_SAID = "(no verdict)"
"""What a reminder answers where the judge's reply held no text: servers refuse messages without any."""


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
    """What a judge said, or why it said nothing that counts. No text in it holds a secret."""

    status: Status
    reply: Reply | None
    """None unless judged."""
    replies: tuple[str, ...]
    """Every reply as it came, or the beginning of a long one."""
    problem: str | None
    """Why there is no verdict."""
    requests: int
    ends_run: UserError | None = None
    """Why no other question would fare better."""


@dataclass(frozen=True)
class RequestForm:
    """Which of the optional parameters a judge takes; reasoning models refuse some."""

    limit: Literal["max_tokens", "max_completion_tokens"] | None = "max_tokens"
    """The name of the limit of tokens."""
    temperature: Literal[0, 1] | None = 0
    """0 asks for the likeliest words; some models take 1 alone, or none."""

    def parameters(self, max_tokens: int) -> dict[str, Any]:
        """What to send beside model and messages."""
        named = {self.limit or "": max_tokens, "temperature": self.temperature}
        return {name: value for name, value in named.items() if name and value is not None}

    def without(self, error: ServerError) -> RequestForm | None:
        """The form to try after an error, None where it blames no parameter that could be left out or renamed."""
        if error.status not in (400, 422):
            return None
        if self.temperature is not None and _blames(error, "temperature"):
            other_value = self.temperature == 0 and "value" in f"{error.code} {error.message}"
            return replace(self, temperature=1 if other_value else None)
        if self.limit and _blames(error, self.limit) and (_is_unsupported(error) or not _is_too_large(error)):
            return replace(self, limit="max_completion_tokens" if self.limit == "max_tokens" else None)
        return None


def _blames(error: ServerError, parameter: str) -> bool:
    return error.parameter == parameter or re.search(rf"\b{parameter}\b", error.message) is not None


def _is_unsupported(error: ServerError) -> bool:
    return error.code.startswith("unsupported")


def _is_too_large(error: ServerError) -> bool:
    """Whether it is about the size of a request: one that a smaller limit would mend."""
    return re.search(r"too (large|long|high|many)|at most|exceed|maximum|context", error.message, re.I) is not None


class _Passing(Exception):
    """A failure that may pass."""

    def __init__(self, text: str, *, retry_after: float | None = None) -> None:
        super().__init__(text)
        self.retry_after = retry_after


class _Unanswered(Exception):
    """A request that failed for good, though it may work another day; its text says why."""


class _Refused(Exception):
    """A question that the server will not answer, however often it is asked; its text says why."""


class _Unusable(Exception):
    """A judge that answers no question; its text says why and what to do."""


@dataclass
class _Calls:
    """Requests made for one question."""

    made: int = 0


class OpenAIJudge:
    """A judge behind any server that speaks the protocol. Threads may share it."""

    def __init__(
        self,
        *,
        model: str,
        api_key: str | None,
        base_url: str | None,
        timeout: float,
        max_tokens: int,
        max_retries: int,
        budget: Budget,
    ) -> None:
        """
        Args:
            model: the judge's name at the server.
            api_key: sent with every request, never written anywhere; None for a server that wants none.
            base_url: None for OpenAI's own.
            timeout: seconds until a request is given up.
            max_tokens: longest reply asked for, its thinking included.
            max_retries: attempts after the first one, per request that fails in a way that may pass.
            budget: shared by all requests.
        Raises:
            UserError: the client is not installed.
        """
        self._connection = Connection(api_key=api_key or "none", base_url=base_url, seconds=timeout)
        self.name = model
        self._max_tokens = max_tokens
        self._max_retries = max_retries
        self._budget = budget
        self._secrets = Secrets(*([api_key] if api_key else []), *url_secrets(self._connection.base_url))
        self._server = self._secrets.without_secrets(shown_url(self._connection.base_url))
        self._form = RequestForm()
        self._alone = threading.Lock()
        self._answered = threading.Event()
        self._refusals = 0
        self._stopping = threading.Event()

    def stop(self) -> None:
        """Let no question wait for another attempt."""
        self._stopping.set()

    def ask(self, criteria: Criteria, *, prompt: str, first: str, second: str) -> Answer:
        """Ask which of two answers is better.

        Raises:
            BudgetUsedUp, Stopped: before anything was sent.
        """
        messages = [{"role": "user", "content": criteria.question(prompt=prompt, first=first, second=second)}]
        replies: list[str] = []
        calls = _Calls()
        for _ in range(ASKS):
            try:
                completion = self._complete(messages, calls)
            except (BudgetUsedUp, Stopped):
                if not calls.made:
                    raise
                return Answer("failed", None, tuple(replies), "the run ended before the next attempt", calls.made)
            except _Unanswered as error:
                return Answer("failed", None, tuple(replies), str(error), calls.made)
            except _Refused as error:  # where it is the reminder that is refused, the reply before it counts
                return Answer("unparsable" if replies else "refused", None, tuple(replies), str(error), calls.made)
            except _Unusable as error:
                return Answer("failed", None, tuple(replies), str(error), calls.made, ends_run=UserError(str(error)))
            replies.append(self._secrets.without_secrets(completion.kept)[:KEPT_CHARACTERS])
            reply = None if completion.refused or completion.cut else parse_reply(completion.text)
            if reply is not None:
                comment = reply.comment and self._secrets.without_secrets(reply.comment)[:KEPT_CHARACTERS]
                return Answer("judged", replace(reply, comment=comment), tuple(replies), None, calls.made)
            if completion.cut or completion.too_long:
                break  # the next one would be as long
            said = (after_thinking(completion.text) or NOTHING_SAID)[:KEPT_CHARACTERS]
            messages += [{"role": "assistant", "content": said}, {"role": "user", "content": criteria.reminder}]
        return Answer("unparsable", None, tuple(replies), self._why_unread(completion), calls.made)

    def _why_unread(self, completion: Completion) -> str:
        if completion.refused:
            return "the judge refused"
        if completion.too_long:
            return f"the reply has more than {MAX_REPLY_BYTES:,} bytes"
        if not completion.cut:
            return "the reply is no verdict"
        if self._form.limit is None:
            return "the server ended the reply before its verdict"
        return f"the reply ends at --max_tokens {self._max_tokens}, before its verdict; raise --max_tokens"

    def _complete(self, messages: list[dict[str, str]], calls: _Calls) -> Completion:
        """The judge's words; retried while that may help."""
        failures = 0
        while True:
            try:
                return self._request_in_turn(messages, calls)
            except _Passing as error:
                failures += 1
                if failures > self._max_retries:
                    raise _Unanswered(f"{error} ({failures} attempts)") from error
                seconds = error.retry_after if error.retry_after is not None else _backoff(failures)
                logger.info("%s; trying again in %.1f s", error, seconds)
                self._stopping.wait(seconds)

    def _request_in_turn(self, messages: list[dict[str, str]], calls: _Calls) -> Completion:
        """One request; until the first reply of the run has come, one at a time."""
        if self._answered.is_set():
            return self._request(messages, calls)
        with self._alone:
            completion = self._request(messages, calls)
            self._answered.set()
            return completion

    def _request(self, messages: list[dict[str, str]], calls: _Calls) -> Completion:
        """One request, and one more for each parameter that the judge turns out not to take.

        Raises:
            Stopped, BudgetUsedUp: it was not made.
            _Passing: it may work another time.
            _Refused: it will not, but another question may.
            _Unusable: no question will.
        """
        while True:
            if self._stopping.is_set():
                raise Stopped
            self._budget.take()
            calls.made += 1
            form = self._form
            parameters = {"model": self.name, "messages": messages, **form.parameters(self._max_tokens)}
            headers: Mapping[str, str] = {}
            try:
                raw = self._connection.complete(parameters)
                headers = raw.headers
                return read_completion(raw)
            except NoReply as error:
                raise _Passing(f"no reply from {self._server} ({self._short(str(error))})") from None
            except NotWhole as error:
                raise _Passing(f"the server's reply holds no message ({self._short(str(error))})") from None
            except ServerError as error:
                if not self._adapt(form, error):
                    raise self._sorted(error, headers) from None

    def _adapt(self, form: RequestForm, error: ServerError) -> bool:
        """Whether another form of the request is worth a try after this error; remembered for the run."""
        changed = form.without(error)
        if changed is None:
            return False
        if self._form == form:  # else another thread has found out already
            self._form = changed
            said = self._short(error.message)
            if changed.temperature != form.temperature:
                logger.warning("%s takes no temperature 0 (%s), so that its verdicts may vary", self.name, said)
            elif changed.limit is None:
                logger.warning("%s takes no %s (%s): asking without a limit", self.name, form.limit, said)
            else:
                logger.warning("%s takes no %s (%s): %s instead", self.name, form.limit, said, changed.limit)
        return True

    def _sorted(self, error: ServerError, headers: Mapping[str, str]) -> Exception:
        """What an error means for this question and for the run."""
        said, status = self._short(error.message), error.status
        unusable = self._unusable(error, said, headers)
        if unusable is not None:
            self._stopping.set()
            return _Unusable(unusable)
        if status in (408, 409, 425, 429) or (status >= 500 and status != 501):
            return _Passing(f"status {status}: {said}", retry_after=_retry_after(headers))
        text = f"status {status}: {said}"
        if _is_too_large(error) and self._form.limit is not None:
            text += f"; a --max_tokens below {self._max_tokens} may help"
        self._refusals += 1  # counted under the lock, as long as no reply has come
        if self._refusals >= REFUSALS_BEFORE_ANY_REPLY and not self._answered.is_set():
            self._stopping.set()
            return _Unusable(
                f"{self._server} refused the first {self._refusals} questions ({text}), and the run is given up"
            )
        return _Refused(text)

    def _unusable(self, error: ServerError, said: str, headers: Mapping[str, str]) -> str | None:
        """Why no question to this judge can be answered, None where another one may be."""
        again = "verdicts so far are kept, run the same command again to go on"
        match error.status:
            case 401 | 403:
                return f"{self._server} refused the API key ({said}); check OPENAI_API_KEY"
            case 402:
                return f"{self._server} wants to be paid ({said}); top the account up, {again}"
            case 404 | 410:
                return f"{self._server} knows no judge {self.name} ({said}); check --judge_model and --base_url"
            case 429 if error.code == QUOTA_USED_UP:
                return f"the account's quota is used up ({said}); {again}"
            case status if 300 <= status < 400:
                target = self._short(shown_url(headers.get("location", "")))
                return f"{self._server} sends questions on ({target}); pass that server as --base_url if you trust it"
        if error.status in (400, 422) and (error.code == "model_not_found" or error.parameter == "model"):
            return f"{self._server} knows no judge {self.name} ({said}); check --judge_model"
        if error.status in (400, 422) and _is_unsupported(error):
            return f"{self.name} cannot be asked in this way ({said}); pass another --judge_model"
        return None

    def _short(self, text: str) -> str:
        """The beginning of a text that came from outside, fit for messages."""
        return printable(self._secrets.without_secrets(text))[:ERROR_CHARACTERS] or "no reason given"


def _retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds that a server asks to wait, None where it does not say; at most ten minutes."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - now()
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_RETRY_AFTER_SECONDS) if math.isfinite(seconds) else None


def _backoff(failures: int) -> float:
    """Seconds before the next attempt: doubling, with jitter so that threads do not return together."""
    longest = min(FIRST_WAIT_SECONDS * 2 ** (failures - 1), LONGEST_WAIT_SECONDS)
    return longest * random.uniform(0.5, 1.0)

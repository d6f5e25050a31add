"""The judge's client; its talk with a server is in test_gpt4_eval.py."""

from __future__ import annotations

import threading
from email.utils import formatdate

import pytest

from dschat.judging.judges import LONGEST_RETRY_AFTER_SECONDS, Budget, BudgetUsedUp, _retry_after
from dschat.judging.redaction import HIDDEN, Secrets
from dschat.judging.replies import Reply, parse_reply


def test_threads_share_a_budget() -> None:
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
    [(None, None), ("2.5", 2.5), ("99999", LONGEST_RETRY_AFTER_SECONDS), ("soon", None), (formatdate(1030), 30.0)],
)
def test_a_server_says_how_long_to_wait_in_seconds_or_by_a_date(value: str | None, seconds: float | None) -> None:
    headers = {} if value is None else {"retry-after": value}
    assert _retry_after(headers, now=lambda: 1000.0) == seconds


@pytest.mark.parametrize(
    ("text", "reply"),
    [
        (" **A**. ", Reply("A", None)),
        ("<think>B, or rather A</think>\nE", Reply("E", None)),
        ('{"comparison": "shorter", "choice": "B"}', Reply("B", "shorter")),
        ("A is better", None),
        ("[" * 100_000, None),
        ("", None),
    ],
)
def test_a_reply_is_one_verdict_or_none(text: str, reply: Reply | None) -> None:
    assert parse_reply(text) == reply


def test_a_key_is_hidden_however_it_is_repeated() -> None:
    secrets = Secrets("sk-0123456789/abc")
    for said in ("key sk-0123456789/abc is wrong", "sk-0123456789%2Fabc", "the key ends in 89/abc"):
        shown = secrets.without_secrets(said)
        assert HIDDEN in shown and "6789" not in shown and "abc" not in shown
    assert secrets.without_secrets("nothing of it") == "nothing of it"

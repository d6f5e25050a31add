"""The judge's client; its talk with a server is in test_gpt4_eval.py."""

from __future__ import annotations

import threading
from email.utils import formatdate

import pytest

from dschat.judging.judges import LONGEST_RETRY_AFTER_SECONDS, Budget, BudgetUsedUp, _retry_after


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

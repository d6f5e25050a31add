"""How hard to try: `DSCHAT_FUZZ_EXAMPLES=10000 pytest tests/fuzz` for a night, a few hundred otherwise."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

SEARCHES = "DSCHAT_FUZZ_EXAMPLES" in os.environ
"""Otherwise the same examples are tried every time, so that a change fails for what it changed."""
EXAMPLES = int(os.environ.get("DSCHAT_FUZZ_EXAMPLES", "200"))


def fuzzed(*, share: float = 1.0) -> Callable[[Any], Any]:
    """Settings of a fuzz test; `share` of the usual number of examples where one of them is slow."""
    return settings(
        max_examples=max(1, round(EXAMPLES * share)), deadline=None, database=None, derandomize=not SEARCHES,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )  # fmt: skip

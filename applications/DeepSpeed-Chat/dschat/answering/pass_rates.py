"""How many programs are right: shares of tests and of programs, and pass@k, each with its 95 % interval.

Means are over problems, so that a problem of which some programs could not be graded weighs as much as any other.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

NORMAL_95 = 1.96
PASS_AT = (1, 5, 10, 50, 100, 500, 1000)
"""The k of pass@k, as far as there are samples."""


@dataclass(frozen=True)
class Graded:
    """The programs for one problem, those left out that could not be graded."""

    difficulty: str
    """"" where the dataset does not say."""
    pass_rates: tuple[float, ...]
    """[n] share of the tests that each passes."""

    @property
    def num_right(self) -> int:
        """Programs that pass all tests."""
        return self.pass_rates.count(1.0)


@dataclass(frozen=True)
class Share:
    """A mean of numbers between 0 and 1, and what it is a mean of."""

    mean: float
    low: float
    """Of the 95 % interval."""
    high: float
    problems: int


@dataclass(frozen=True)
class PassRates:
    """The numbers of one set of problems; None where no problem has one."""

    accuracy: Share | None
    """Share of tests that pass."""
    strict_accuracy: Share | None
    """Share of programs that pass all tests; the same as pass@1."""
    pass_at: Mapping[int, Share]
    """By k, over the problems that have at least k graded programs."""

    def to_json(self) -> dict[str, Any]:
        """As JSON-serialisable values."""
        return asdict(self) | {"pass_at": {str(k): asdict(share) for k, share in self.pass_at.items()}}


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Chance that at least one of k programs is right, estimated without bias from more of them.

    1 - C(n - c, k) / C(n, k), the share of all choices of k among n samples that hold a right one (Chen et al., 2021,
    arXiv 2107.03374, Eq. 1).

    Args:
        num_samples: n.
        num_right: c, at most n.
        k: 1 to n.
    """
    if not 1 <= k <= num_samples or not 0 <= num_right <= num_samples:
        raise ValueError(f"no pass@{k} of {num_samples} samples of which {num_right} are right")
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def mean_share(values: Sequence[float]) -> Share | None:
    """Mean of numbers between 0 and 1 with its 95 % interval, None without values.

    Wilson's interval (1927) for as many yes-or-no answers as would vary like these values: exactly his where all values
    are 0 or 1, and never of no width, also where all are equal.
    """
    if not values:
        return None
    mean, size = statistics.fmean(values), float(len(values))
    variance = statistics.pvariance(values, mean)
    if variance > 0:
        size *= mean * (1 - mean) / variance
    square = NORMAL_95**2 / size
    center = (mean + square / 2) / (1 + square)
    half = NORMAL_95 * math.sqrt(mean * (1 - mean) / size + square / (4 * size)) / (1 + square)
    return Share(mean, max(0.0, center - half), min(1.0, center + half), len(values))


def pass_rates(problems: Sequence[Graded]) -> PassRates:
    """All numbers of some problems."""
    known = [problem for problem in problems if problem.pass_rates]
    most = max((len(problem.pass_rates) for problem in known), default=0)
    return PassRates(
        accuracy=mean_share([statistics.fmean(problem.pass_rates) for problem in known]),
        strict_accuracy=mean_share([problem.num_right / len(problem.pass_rates) for problem in known]),
        pass_at={k: share for k in PASS_AT if k <= most and (share := _pass_at(known, k)) is not None},
    )


def by_difficulty(problems: Sequence[Graded]) -> dict[str, PassRates]:
    """The numbers of all problems as `all`, then of each difficulty in alphabetical order where they have one."""
    difficulties = sorted({problem.difficulty for problem in problems} - {""})
    return {"all": pass_rates(problems)} | {
        name: pass_rates([problem for problem in problems if problem.difficulty == name]) for name in difficulties
    }


def _pass_at(problems: Sequence[Graded], k: int) -> Share | None:
    enough = [problem for problem in problems if len(problem.pass_rates) >= k]
    return mean_share([pass_at_k(len(problem.pass_rates), problem.num_right, k) for problem in enough])

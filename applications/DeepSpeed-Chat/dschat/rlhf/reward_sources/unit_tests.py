"""Scores from the unit tests of programming problems."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dschat.code_execution.answers import extract_program
from dschat.code_execution.apps_tests import Outcome, TestReport
from dschat.code_execution.pool import Grading, GradingPool
from dschat.errors import TrainingFault
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.base import RewardSource, SequenceScores

logger = logging.getLogger(__name__)

MAX_FAILED_BATCHES = 3
"""Rollout batches in a row of which the sandbox graded nothing, after which the run is given up."""


@dataclass(frozen=True)
class _Begun:
    """A rollout whose usable rows are being graded."""

    rollout: Rollout
    rows: tuple[int, ...]
    grading: Grading


class UnitTestReward(RewardSource):
    """Runs each answer's program on the tests of its own problem, in processes beside the training.

    A program that could not be graded, because the sandbox failed or the problem has no tests, gets NaN and no reward.
    """

    def __init__(self, pool: GradingPool) -> None:
        """
        Args:
            pool: grades; `close` closes it.
        """
        self._pool = pool
        self._begun: _Begun | None = None
        self._failed_batches = 0
        """In a row. Not saved: a run that goes on starts a sandbox of its own."""

    def begin(self, rollout: Rollout) -> None:
        """Hand the usable answers, each with its own record's tests, to the pool."""
        rows = tuple(rollout.usable.nonzero()[:, 0].tolist())
        jobs = [(extract_program(rollout.answers[row]), rollout.records[row].get("input_output") or {}) for row in rows]
        self._begun = _Begun(rollout, rows, self._pool.submit(jobs))

    def score(self, rollout: Rollout) -> SequenceScores:
        """Scores [B] float32, NaN in unusable rows and where grading failed.

        Raises:
            TrainingFault: nothing could be graded, `MAX_FAILED_BATCHES` times in a row.
        """
        if self._begun is None or self._begun.rollout is not rollout:
            self.begin(rollout)
        begun, self._begun = self._begun, None
        assert begun is not None
        started = time.perf_counter()
        reports = begun.grading.results()
        wait_seconds = time.perf_counter() - started
        _warn_of_ungraded(reports)
        self._stop_without_grades(reports)
        spread = _Spread(begun.rows, len(rollout.records), rollout.response_mask.device)
        cached = begun.grading.cached
        metrics = {
            "test_pass_rate": [report.pass_rate for report in reports],
            "strict_pass_rate": [_all_passed(report) for report in reports],
            "ungraded_share": [float(bool(report.ungraded)) for report in reports],
            "grading_cache_hits": [float(hit) for hit in cached],
            "grading_cpu_seconds": [0.0 if hit else r.cpu_seconds for r, hit in zip(reports, cached, strict=True)],
            "grading_wait_seconds": [wait_seconds for _ in reports],
        }
        for outcome in Outcome:
            if outcome not in (Outcome.PASS, Outcome.INFRA_ERROR):
                metrics[f"test_{outcome}_share"] = [_share(report, outcome) for report in reports]
        values = spread([report.score for report in reports])
        return SequenceScores(
            values=values,
            metrics={name: spread(numbers) for name, numbers in metrics.items()},
            unscored=values.isnan(),
        )

    def close(self) -> None:
        """End the grading processes."""
        self._pool.close()

    def _stop_without_grades(self, reports: Sequence[TestReport]) -> None:
        """Count the batches of which nothing was graded; one without any answer says nothing."""
        if reports:
            self._failed_batches = self._failed_batches + 1 if all(report.ungraded for report in reports) else 0
        if self._failed_batches >= MAX_FAILED_BATCHES:
            raise TrainingFault(
                f"no answer of the last {self._failed_batches} rollout batches could be graded "
                f"({reports[0].ungraded}); free memory and cores or choose another --code_sandbox, then go on with "
                "--resume auto"
            )


@dataclass(frozen=True)
class _Spread:
    """Puts numbers of some rows into their places among all rows."""

    rows: Sequence[int]
    total: int
    device: torch.device

    def __call__(self, values: Sequence[float]) -> Tensor:
        """[total] float32, NaN in the other rows."""
        result = torch.full((self.total,), math.nan)
        result[list(self.rows)] = torch.tensor(values, dtype=torch.float32)
        return result.to(self.device)


def _share(report: TestReport, outcome: Outcome) -> float:
    return math.nan if report.ungraded else report.outcomes.count(outcome) / len(report.outcomes)


def _all_passed(report: TestReport) -> float:
    return math.nan if report.ungraded else float(report.pass_rate == 1.0)


def _warn_of_ungraded(reports: Sequence[TestReport]) -> None:
    reasons = [report.ungraded for report in reports if report.ungraded]
    if reasons:
        logger.warning(
            "%d of %d answers could not be graded and are left out: %s", len(reasons), len(reports), reasons[0]
        )

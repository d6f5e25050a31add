"""Programs for held-out problems, run on their tests: from checked options to a result file.

A row holds what `inference_with_rewards.py` writes (prompt, response, reward) and also `outcomes` (one word a test),
`difficulty`, `id` (of the problem), `sample` (number of the answer among those to the problem) and `ungraded`: why the
reward is null, "" where it is not. A fault of the sandbox is never a reward.
"""

from __future__ import annotations

import logging
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from dschat.answering.answering import Answer, AnswerSource, GeneratedAnswers, ReferenceAnswers, Worked, answer_all
from dschat.answering.apps_options import AppsOptions
from dschat.answering.devices import choose_device, choose_dtype
from dschat.answering.journal import Finished, Journal, finished_before
from dschat.answering.pass_rates import Graded, by_difficulty
from dschat.answering.policy import load_policy, policy_path, sampling_settings
from dschat.answering.problems import Problem, load_problems
from dschat.answering.reward_scores import DECIMALS
from dschat.code_execution import GradingPool, Outcome, TestReport, extract_program
from dschat.data.cache import content_key
from dschat.rlhf.reward_sources import open_grading_pool

logger = logging.getLogger(__name__)

BATCH_SECONDS = 7 * 24 * 3600.0
"""Every program has limits of its own; slow ones must not cost the others of a large batch their grades."""
NOT_SETTINGS = ("code_sandbox", "allow_unsandboxed", "grading_workers")
"""Flags of the grading that shape no row."""


def run(options: AppsOptions) -> str:
    """Answer every problem and run the programs, or what an earlier run left of it, and write the result file.

    Returns:
        The closing lines.
    Raises:
        UserError: model, data or options that cannot work, or no sandbox works here; nothing is overwritten.
    """
    device = choose_device(options.device, options.gpu)
    dtype = choose_dtype(options.dtype, device)
    model_path = None if options.ref_scores else policy_path(options)
    problems = load_problems(options)
    settings = run_settings(options, problems, dtype=dtype, model_path=model_path)
    before = finished_before(options.output, settings)
    if before is not None:
        logger.info("%s is finished already", options.output)
        return closing_lines(options.output, before)
    # before the model: where no sandbox works, that is said at once
    with open_grading_pool(options.grading, batch_seconds=BATCH_SECONDS) as pool:
        source: AnswerSource = ReferenceAnswers(problems)
        if model_path is not None:
            policy = load_policy(model_path, options, device=device, dtype=dtype)
            source = GeneratedAnswers(policy, problems, options, per_prompt=options.num_return_sequences)
        judge = UnitTestJudge(pool, problems, per_problem=options.num_return_sequences)
        with Journal(options.output, settings) as journal:
            worked = answer_all(source, judge, journal, batch_size=options.batch_size)
            closing = closing_numbers(journal.finished.values(), worked, per_problem=options.num_return_sequences)
            closing["sandbox"] = pool.description
            journal.finish(closing)
    return closing_lines(options.output, closing)


def run_settings(
    options: AppsOptions, problems: Sequence[Problem], *, dtype: torch.dtype, model_path: str | None
) -> dict[str, Any]:
    """Everything that shapes a result file, JSON-serialisable."""
    grading = {name: value for name, value in asdict(options.grading).items() if name not in NOT_SETTINGS}
    shared = {
        "dataset": options.dataset,
        "problems": content_key({"rows": [[row.prompt, row.chosen, row.tests, row.identity] for row in problems]}),
        "num_samples": len(problems),
        "num_return_sequences": options.num_return_sequences,
        "apps_prompt": options.apps_prompt,
        "end_of_conversation_token": options.end_of_conversation_token,
        "dtype": str(dtype).removeprefix("torch."),
        "batch_size": options.batch_size,
        "ref_scores": options.ref_scores,
        **grading,
    }
    return shared if model_path is None else shared | sampling_settings(options, model_path)


class UnitTestJudge:
    """Runs programs in the pool's processes while further ones are written."""

    batches_ahead = 1

    def __init__(self, pool: GradingPool, problems: Sequence[Problem], *, per_problem: int) -> None:
        self._pool = pool
        self._problems = problems
        self._per_problem = per_problem

    def begin(self, numbers: Sequence[int], answers: Sequence[Answer]) -> Callable[[], list[dict[str, Any]]]:
        """See `answering.Judge`."""
        places = [divmod(number, self._per_problem) for number in numbers]
        problems = [self._problems[row] for row, _ in places]
        grading = self._pool.submit(
            [(extract_program(answer.text), row.tests) for row, answer in zip(problems, answers, strict=True)]
        )
        return lambda: [
            _record(problem, sample, answer, report)
            for problem, (_, sample), answer, report in zip(problems, places, answers, grading.results(), strict=True)
        ]


def _record(problem: Problem, sample: int, answer: Answer, report: TestReport) -> dict[str, Any]:
    return {
        "prompt": problem.prompt,
        "response": answer.text,
        "reward": None if report.ungraded else round(report.score, DECIMALS),
        "outcomes": [str(outcome) for outcome in report.outcomes],
        "difficulty": problem.difficulty,
        "id": problem.identity,
        "sample": sample,
        "ungraded": report.ungraded,
    }


def closing_numbers(finished: Iterable[Finished], worked: Worked, *, per_problem: int) -> dict[str, Any]:
    """Pass rates overall and by difficulty, what could not be graded and why, mean reward and length, and this speed.

    Args:
        finished: all rows of the run.
        worked: what this part of the run did.
        per_problem: answers to each problem.
    """
    rows = sorted(finished, key=lambda row: row.row)
    records = [row.record for row in rows]
    known = [record["reward"] for record in records if record["reward"] is not None]
    faults = sum(Outcome.INFRA_ERROR in record["outcomes"] for record in records)
    problems = list(_graded(rows, per_problem))
    numbers: dict[str, Any] = {
        "rows": len(rows),
        "problems": len(problems),
        "ungraded": {"sandbox": faults, "tests": len(records) - len(known) - faults},
        "reward": statistics.fmean(known) if known else None,
        "pass_rates": {name: rates.to_json() for name, rates in by_difficulty(problems).items()},
    }
    if any(row.tokens for row in rows):
        numbers["mean_tokens"] = statistics.fmean(row.tokens for row in rows)
        numbers["tokens_per_second"] = worked.tokens_per_second
    return numbers


def _graded(rows: Sequence[Finished], per_problem: int) -> Iterator[Graded]:
    """By problem, from all rows in their order."""
    for start in range(0, len(rows), per_problem):
        records = [row.record for row in rows[start : start + per_problem]]
        outcomes = [record["outcomes"] for record in records if record["reward"] is not None]
        yield Graded(records[0]["difficulty"], tuple(tests.count(Outcome.PASS) / len(tests) for tests in outcomes))


def closing_lines(output: Path, numbers: Mapping[str, Any]) -> str:
    """The numbers as a line of counts and a table."""
    counts = [f"{output}: {numbers['rows']} programs for {numbers['problems']} problems"]
    if numbers["reward"] is not None:
        counts.append(f"mean reward {numbers['reward']:.4f}")
    if numbers["ungraded"]["sandbox"]:
        counts.append(f"{numbers['ungraded']['sandbox']} not graded because the sandbox failed")
    if numbers["ungraded"]["tests"]:
        counts.append(f"{numbers['ungraded']['tests']} not graded because the problem has no usable tests")
    if "mean_tokens" in numbers:
        counts.append(f"mean length {numbers['mean_tokens']:.1f} tokens")
        if numbers["tokens_per_second"] is not None:
            counts.append(f"{numbers['tokens_per_second']:.0f} tokens/s")
    return "\n".join([", ".join(counts), *_table(numbers["pass_rates"])])


def _table(pass_rates: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """One line for each set of problems, in per cent, with 95 % intervals."""
    ks = list(pass_rates["all"]["pass_at"])
    columns = ["accuracy", "strict accuracy", *(f"pass@{k}" for k in ks)]
    lines = [f"{'% (95 % interval)':18}{'problems':>9}" + "".join(f"{column:>21}" for column in columns)]
    for name, rates in pass_rates.items():
        shares = [rates["accuracy"], rates["strict_accuracy"], *(rates["pass_at"].get(k) for k in ks)]
        problems = shares[0]["problems"] if shares[0] else 0
        lines.append(f"{name:18}{problems:>9}" + "".join(f"{_spelled(share):>21}" for share in shares))
    return lines


def _spelled(share: Mapping[str, float] | None) -> str:
    if share is None:
        return "n/a"
    mean, low, high = (100 * share[name] for name in ("mean", "low", "high"))
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"

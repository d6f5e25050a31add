"""Everything that the report shows, from result and verdict files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dschat.answering.results import Result, finite, read_result_rows
from dschat.data.json_rows import read_json_rows
from dschat.errors import UserError
from dschat.judging.pairs import SAMPLED, made_by
from dschat.judging.tally import PairOutcome, Summary, pair_outcomes, summarize
from dschat.judging.verdicts import Verdict, parse_verdicts


@dataclass(frozen=True)
class Comparison:
    """One verdict file."""

    model_a: str
    """Label of model A."""
    model_b: str
    summary: Summary
    outcomes: tuple[PairOutcome, ...]


@dataclass
class ReportData:
    """What was read; filled file by file."""

    answers: dict[str, dict[tuple[str, int], Result]] = field(default_factory=dict)
    """By model's label, then by prompt and how often that prompt came before."""
    comparisons: list[Comparison] = field(default_factory=list)
    made_by: dict[str, str] = field(default_factory=dict)
    """Which model wrote the answers, by label, where the file beside them says so: file names such as A tell little."""

    @property
    def models(self) -> list[str]:
        """Labels in the order in which they were met."""
        return list(self.answers)

    @property
    def prompts(self) -> list[tuple[str, int]]:
        """All prompts, in the order in which they were met."""
        return list(dict.fromkeys(key for answers in self.answers.values() for key in answers))


def read_report(paths: Sequence[Path]) -> ReportData:
    """Read any set of result and verdict files.

    Raises:
        UserError: a file is missing or is neither.
    """
    kinds = {path: _rows(path) for path in dict.fromkeys(paths)}
    verdicts = {path: rows for path, rows in kinds.items() if "winner" in rows[0] and "model_a" in rows[0]}
    parsed = {path: parse_verdicts(rows, source=str(path)) for path, rows in verdicts.items()}
    named = [path for path in kinds if path not in verdicts]
    for contest, _ in parsed.values():
        if contest is not None:
            named += [Path(contest.model_a), Path(contest.model_b)]
    labels = label_files(named)
    data = ReportData(made_by={label: model for path, label in labels.items() if (model := made_by(path))})
    for path in kinds:
        if path not in verdicts:
            rows = read_result_rows(path, flag="FILE")
            results = [Result(row["prompt"], row["response"], finite(row.get("reward"))) for row in rows]
            _add_answers(data, labels[path], results)
    for contest, found in parsed.values():
        if contest is not None:
            label_a, label_b = labels[Path(contest.model_a)], labels[Path(contest.model_b)]
            _add_comparison(data, label_a, label_b, contest.dataset, contest.judge, found)
    return data


def label_files(paths: Sequence[Path]) -> dict[Path, str]:
    """A short name for each result file: its name, with its folder's where two would be the same.

    A sample of a file is named like the file.
    """
    distinct = {path: (path.resolve().parent, path.stem.removesuffix(SAMPLED)) for path in paths}
    counts = Counter(stem for _, stem in set(distinct.values()))
    return {path: stem if counts[stem] == 1 else f"{folder.name}/{stem}" for path, (folder, stem) in distinct.items()}


def page_data(data: ReportData) -> dict[str, Any]:
    """What the page's script gets, JSON-serialisable."""
    numbers = {key: number for number, key in enumerate(data.prompts)}
    rows: list[dict[str, Any]] = [{"prompt": prompt, "answers": {}, "verdicts": {}} for prompt, _ in numbers]
    for model, answers in data.answers.items():
        for key, result in answers.items():
            rows[numbers[key]]["answers"][model] = [result.response, result.reward]
    for number, comparison in enumerate(data.comparisons):
        for key, outcome in _keyed(comparison.outcomes):
            rows[numbers[key]]["verdicts"][number] = {
                "outcome": _outcome_word(outcome),
                "comments": [verdict.comment for verdict in outcome.verdicts if verdict.comment],
            }
    contests = [
        {"a": comparison.model_a, "b": comparison.model_b, "judge": comparison.summary.judge}
        for comparison in data.comparisons
    ]
    return {"models": data.models, "contests": contests, "rows": rows}


def _outcome_word(outcome: PairOutcome) -> str:
    if outcome.state != "judged":
        return outcome.state
    return outcome.winner or "Tie" if outcome.agreed else "disagree"


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; pass files of inference_with_rewards.py or gpt4-eval.py")
    rows = read_json_rows(path)
    if not rows:
        raise UserError(f"{path} holds no row; pass files of inference_with_rewards.py or gpt4-eval.py")
    return rows


def _add_answers(data: ReportData, label: str, results: Sequence[Result]) -> None:
    seen: Counter[str] = Counter()
    known = data.answers.setdefault(label, {})
    for result in results:
        known.setdefault((result.prompt, seen[result.prompt]), result)
        seen[result.prompt] += 1


def _add_comparison(
    data: ReportData, label_a: str, label_b: str, dataset: str, judge: str, verdicts: Sequence[Verdict]
) -> None:
    outcomes = tuple(pair_outcomes(verdicts))
    summary = summarize(
        verdicts, model_a=label_a, model_b=label_b, dataset=dataset, judge=judge, num_pairs=len(outcomes)
    )
    data.comparisons.append(Comparison(label_a, label_b, summary, outcomes))
    pairs = [outcome.verdicts[0].pair for outcome in outcomes]
    _add_answers(data, label_a, [pair.a for pair in pairs])
    _add_answers(data, label_b, [pair.b for pair in pairs])


def _keyed(outcomes: Sequence[PairOutcome]) -> list[tuple[tuple[str, int], PairOutcome]]:
    """Each outcome with its prompt and how often that prompt came before."""
    seen: Counter[str] = Counter()
    keyed = []
    for outcome in outcomes:
        prompt = outcome.verdicts[0].pair.prompt
        keyed.append(((prompt, seen[prompt]), outcome))
        seen[prompt] += 1
    return keyed

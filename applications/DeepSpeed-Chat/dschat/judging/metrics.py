"""ROUGE against the dataset's preferred answers, and distinct-n, of result files. `--help` lists the flags.

ROUGE-1, -2 and -L are F-measures with stemming from the `rouge-score` library; where a prompt has several references,
the best one counts. ROUGE reads letters and digits of English alone. distinct-n (Li et al., 2016, arXiv 1510.03055) is
the number of different n-grams of words over the number of all, over all answers of a file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dschat.answering.appended_file import write_whole
from dschat.answering.console import set_up_logging, show
from dschat.answering.dataset_names import HUB_NAMES
from dschat.answering.results import Result, read_results
from dschat.data.stages import SFT
from dschat.errors import UserError

ROUGE = ("rouge1", "rouge2", "rougeL")
DISTINCT_SIZES = (1, 2, 3)


@dataclass(frozen=True)
class Metrics:
    """The numbers of one result file."""

    answers: int
    compared: int
    """Answers whose prompt has a reference."""
    rouge1: float | None
    """Mean F-measure, 0 to 1; None without references."""
    rouge2: float | None
    rougeL: float | None
    distinct1: float | None
    """Share of different words among all words; None where the answers are too short for one."""
    distinct2: float | None
    distinct3: float | None


def measure(results: Sequence[Result], references: Mapping[str, Sequence[str]]) -> Metrics:
    """All numbers of a file.

    Args:
        results: its answers.
        references: preferred answers by prompt.
    Raises:
        UserError: the libraries are not installed.
    """
    pairs = [(result.response, references[result.prompt]) for result in results if references.get(result.prompt)]
    rouge = rouge_means(pairs)
    distinct = [distinct_share([result.response for result in results], size) for size in DISTINCT_SIZES]
    return Metrics(len(results), len(pairs), *(rouge[name] for name in ROUGE), *distinct)


def rouge_means(pairs: Iterable[tuple[str, Sequence[str]]]) -> dict[str, float | None]:
    """Mean ROUGE F-measures of (answer, references) pairs; None where there is no pair."""
    scorer = _rouge_scorer()
    scores = [scorer.score_multi(list(targets), answer) for answer, targets in pairs]
    return {name: statistics.fmean(score[name].fmeasure for score in scores) if scores else None for name in ROUGE}


def distinct_share(texts: Iterable[str], size: int) -> float | None:
    """distinct-n of some texts, None where none of them has `size` words.

    Args:
        texts: split at white space, in lower case; no n-gram reaches from one into the next.
        size: n.
    """
    try:
        from nltk.util import ngrams
    except ImportError as error:
        raise _not_installed() from error
    found = [gram for text in texts for gram in ngrams(text.lower().split(), size)]
    return len(set(found)) / len(found) if found else None


def find_references(path: str, *, data_format: str | None, cache_dir: Path) -> dict[str, list[str]]:
    """The preferred answers of a dataset's evaluation split, by prompt.

    Raises:
        UserError: the data is missing, unknown or malformed.
    """
    # slow to import
    from dschat.answering.prompts import SHUFFLE_SEED
    from dschat.data.raw_datasets import find_raw_dataset

    dataset = find_raw_dataset(path, data_format=data_format, seed=SHUFFLE_SEED, cache_dir=cache_dir)
    references: dict[str, list[str]] = defaultdict(list)
    for row in dataset.load(SFT.texts).evaluation:
        prompt, chosen = dataset.prompt(row), dataset.chosen(row)
        if prompt and chosen:
            references[prompt].append(chosen)
    return dict(references)


def metrics_table(found: Mapping[str, Metrics]) -> str:
    """One line per file."""
    columns = [name for name in Metrics.__dataclass_fields__ if name not in ("answers", "compared")]
    lines = ["".join([f"{'file':40}", f"{'answers':>8}", *(f"{name:>11}" for name in columns)])]
    for name, metrics in found.items():
        values = [getattr(metrics, column) for column in columns]
        cells = ["n/a" if value is None else f"{value:.4f}" for value in values]
        lines.append("".join([f"{name[-40:]:40}", f"{metrics.answers:>8}", *(f"{cell:>11}" for cell in cells)]))
    return "\n".join(lines)


def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _not_installed() from error
    return RougeScorer(list(ROUGE), use_stemmer=True)


def _not_installed() -> UserError:
    return UserError("rouge-score is not installed; pip install 'dschat[eval]'")


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="metrics.py", description="ROUGE against the dataset's answers and distinct-n.", allow_abbrev=False
    )
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="result files of inference_with_rewards.py")
    add("--dataset", default="summarize", help=f"{', '.join(HUB_NAMES)}, or a name or path that --data_path takes")
    add("--data-path", help="file or folder to read --dataset from, instead of the hub")
    add("--data-format", help="dataset whose columns --data-path has, where its name does not tell")
    add("--data-output-path", type=Path, default=Path("data_cache"), help="cache of built datasets")
    add("--output", type=Path, help="also write the numbers to this file, as JSON")
    return parser.parse_args(argv)


def main() -> None:
    """Measure every file."""
    arguments = parse_arguments(sys.argv[1:])
    set_up_logging()
    results = {str(path): read_results(path, flag="FILE") for path in arguments.files}
    hub_name = HUB_NAMES.get(arguments.dataset)
    references = find_references(
        arguments.data_path or hub_name or arguments.dataset,
        data_format=arguments.data_format or (hub_name if arguments.data_path else None),
        cache_dir=arguments.data_output_path,
    )
    found = {path: measure(rows, references) for path, rows in results.items()}
    if not any(metrics.compared for metrics in found.values()):
        raise UserError(
            f"no prompt of the files is in the evaluation split of {arguments.data_path or arguments.dataset}; pass "
            "the --dataset and --data-path that inference had"
        )
    if arguments.output is not None:
        numbers = {path: asdict(metrics) for path, metrics in found.items()}
        write_whole(arguments.output, json.dumps(numbers, indent=2) + "\n")
    show(metrics_table(found))

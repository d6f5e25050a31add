"""One self-contained HTML page from any set of result and verdict files. `--help` lists the flags."""

from __future__ import annotations

import argparse
import html
import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from dschat.answering.appended_file import write_whole
from dschat.answering.console import set_up_logging, show
from dschat.answering.results import Result
from dschat.errors import UserError
from dschat.judging.charts import histogram, scatter
from dschat.judging.report_data import Comparison, ReportData, page_data, read_report
from dschat.judging.verdicts import HUMAN, REWARD_MODEL

TEMPLATE = Path(__file__).with_name("report_template.html")
COLORS = 8
"""Colours of the template."""
JUDGE_NOTES = {
    REWARD_MODEL: "The judge is the trained reward model: the answer with the higher reward wins. PPO maximises this "
    "very reward, so this is no independent verdict; set OPENAI_API_KEY for a judge that is.",
    HUMAN: "The judge is a person who saw the answers without the models' names.",
}


def report_page(data: ReportData, *, title: str) -> str:
    """The whole page."""
    # "</script>" inside a text must not end the script; < is as good inside JSON strings
    embedded = json.dumps(page_data(data), ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    parts = {
        "TITLE": html.escape(title),
        "LEGEND": _legend(data.models),
        "MODELS": _models_table(data),
        "COMPARISONS": _comparisons_section(data.comparisons, data.models),
        "CHARTS": _charts(data),
        "DATA": embedded,
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    head, *rest = page.split("{{")
    pieces = [head]
    # cut at the template's own marks, so that marks inside the data mean nothing
    for piece in rest:
        name, _, after = piece.partition("}}")
        pieces += [parts[name], after]
    return "".join(pieces)


def _legend(models: Sequence[str]) -> str:
    return "".join(
        f'<span class="key s{number}"><i></i>{html.escape(model)}</span>' for number, model in enumerate(models)
    )


def _models_table(data: ReportData) -> str:
    rows = []
    for model, answers in data.answers.items():
        found = list(answers.values())
        rewards = [result.reward for result in found if result.reward is not None]
        cells = [
            html.escape(model),
            *([html.escape(data.made_by.get(model, ""))] if data.made_by else []),
            f"{len(found):,}",
            f"{statistics.fmean(rewards):.3f}" if rewards else "n/a",
            f"{statistics.fmean(map(num_words, found)):.1f}",
            f"{sum(not result.response.strip() for result in found):,}",
        ]
        rows.append(_table_row(cells))
    made_by = ["made by"] if data.made_by else []
    return _table(["model", *made_by, "answers", "mean reward", "mean words", "empty answers"], rows)


def num_words(result: Result) -> int:
    """Length of an answer in words."""
    return len(result.response.split())


def _comparisons_section(comparisons: Sequence[Comparison], models: Sequence[str]) -> str:
    if not comparisons:
        return "<p>No verdict file was given, so nothing is compared.</p>"
    judges = dict.fromkeys(comparison.summary.judge for comparison in comparisons)
    parts = []
    for judge in judges:
        judged = [comparison for comparison in comparisons if comparison.summary.judge == judge]
        note = JUDGE_NOTES.get(judge, f"The judge is the language model {judge}.")
        parts.append(f'<h3>Judge: {html.escape(judge)}</h3><p class="note">{html.escape(note)}</p>')
        parts.append(_matrix(judged, models))
    parts.append(_details(comparisons))
    return "".join(parts)


def _matrix(comparisons: Sequence[Comparison], order: Sequence[str]) -> str:
    """Win rates of the row's model against the column's, with intervals."""
    compared = {name for each in comparisons for name in (each.model_a, each.model_b)}
    models = [name for name in order if name in compared]
    rates: dict[tuple[str, str], tuple[float, float, float, int]] = {}
    for each in comparisons:
        rate, interval = each.summary.win_rate, each.summary.interval
        if rate is not None and interval is not None:
            low, high = interval
            rates[each.model_a, each.model_b] = (rate, low, high, each.summary.judged)
            rates[each.model_b, each.model_a] = (1 - rate, 1 - high, 1 - low, each.summary.judged)
    rows = []
    for model in models:
        cells = [f"<th>{html.escape(model)}</th>"]
        for other in models:
            found = rates.get((model, other))
            if found is None:
                cells.append('<td class="none">–</td>')
                continue
            rate, low, high, count = found
            cells.append(
                f'<td class="rate" style="--rate:{rate:.3f}"><b>{rate:.0%}</b>'
                f"<small>{low:.0%} to {high:.0%}<br>{count} pairs</small></td>"
            )
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = ['<th class="corner">wins against</th>', *(f"<th>{html.escape(model)}</th>" for model in models)]
    return (
        f'<div class="wide"><table class="matrix"><thead><tr>{"".join(head)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _details(comparisons: Iterable[Comparison]) -> str:
    columns = [
        "A", "B", "judge", "win rate of A", "wins / ties / losses", "orders disagree", "judged / failed",
        "chose the first", "chose the longer", "agrees with reward", "requests",
    ]  # fmt: skip
    rows = []
    for each in comparisons:
        found = each.summary
        interval = "" if found.interval is None else f" ({found.interval[0]:.0%} to {found.interval[1]:.0%})"
        cells = [
            html.escape(each.model_a), html.escape(each.model_b), html.escape(found.judge),
            _percent(found.win_rate) + interval, f"{found.wins} / {found.ties} / {found.losses}",
            str(found.disagreeing), f"{found.judged} / {found.failed}", _percent(found.position_bias),
            _percent(found.length_bias), _percent(found.reward_agreement), str(found.requests),
        ]  # fmt: skip
        rows.append(_table_row(cells))
    return _table(columns, rows)


def _table(columns: Sequence[str], rows: Sequence[str]) -> str:
    head = "".join(f"<th>{column}</th>" for column in columns)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'


def _table_row(cells: Iterable[str]) -> str:
    """A row of cells that are HTML already."""
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{share:.0%}"


def _charts(data: ReportData) -> str:
    def collect(value: Callable[[Result], float | None]) -> dict[str, list[float]]:
        scored = {
            model: [result for result in answers.values() if result.reward is not None]
            for model, answers in data.answers.items()
        }
        return {model: [float(value(result) or 0.0) for result in results] for model, results in scored.items()}

    words = {model: [num_words(each) for each in answers.values()] for model, answers in data.answers.items()}
    rewards = collect(lambda result: result.reward)
    lengths = histogram(words, label="words", counts=True)
    figures = [("lengths", "Lengths of the answers", lengths)]
    if any(rewards.values()):
        by_reward = scatter(collect(num_words), rewards, label="words", vertical_label="reward")
        figures.insert(0, ("rewards", "Rewards", histogram(rewards, label="reward")))
        figures.append(("reward-length", "Reward against length", by_reward))
    return "".join(
        f'<figure id="{name}"><figcaption>{caption}</figcaption>{svg}</figure>' for name, caption, svg in figures
    )


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="report.py", description="One self-contained HTML page from result and verdict files.", allow_abbrev=False
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="result files (named in the page by their file names) and verdict files, in any order",
    )  # fmt: skip
    parser.add_argument("--output", type=Path, required=True, help="the page; replaced if it exists")
    parser.add_argument("--title", default="Model comparison", help="heading of the page")
    return parser.parse_args(argv)


def main() -> None:
    """Read, draw, write."""
    arguments = parse_arguments(sys.argv[1:])
    set_up_logging()
    if arguments.output.resolve() in {path.resolve() for path in arguments.files}:
        raise UserError(f"--output {arguments.output} is one of the files to read; name another file")
    data = read_report(arguments.files)
    if len(data.models) > COLORS:
        raise UserError(f"the files hold {len(data.models)} models; a page can tell {COLORS} apart, pass fewer")
    write_whole(arguments.output, report_page(data, title=arguments.title))
    counts = f"{len(data.models)} models, {len(data.prompts)} prompts, {len(data.comparisons)} comparisons"
    show(f"{arguments.output}: {counts}")

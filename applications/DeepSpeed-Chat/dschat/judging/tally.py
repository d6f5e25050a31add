"""From verdicts to numbers: win rate with its interval, and what may have swayed the judge."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from dschat.judging.verdicts import REWARD_MODEL, Verdict, Winner, newest

RESAMPLES = 10_000
CONFIDENCE = 0.95
BOOTSTRAP_SEED = 1234

State = Literal["judged", "failed", "pending"]


@dataclass(frozen=True)
class PairOutcome:
    """What the judge said about one pair, over the orders in which it was shown."""

    row: int
    state: State
    """judged: a verdict in every order. failed: a verdict that could not be had. pending: an order not asked yet."""
    winner: Winner | None
    """None unless judged; a tie where the orders disagree."""
    agreed: bool
    """Whether all orders led to the same winner."""
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True)
class Counts:
    """Pairs by outcome, from model A's side."""

    wins: int
    ties: int
    losses: int


@dataclass(frozen=True)
class Summary:
    """A comparison in numbers; shares are None where nothing can be counted."""

    model_a: str
    model_b: str
    made_by_a: str | None
    """The model that wrote A's answers, as the file beside them says; None where nothing says."""
    made_by_b: str | None
    dataset: str
    judge: str
    pairs: int
    """Pairs that were to be judged."""
    judged: int
    """Pairs with a verdict in every order."""
    failed: int
    """Pairs with a verdict that could not be read, was refused, or could not be had."""
    pending: int
    """Pairs not asked about yet."""
    win_rate: float | None
    """(wins + ties / 2) / judged; None where fewer than half of the pairs that were tried could be judged, as those
    are not a fair sample of all."""
    interval: tuple[float, float] | None
    """95 % bootstrap interval of the win rate, over pairs."""
    wins: int
    """Judged pairs that model A won; where the two orders disagree, the pair is a tie."""
    ties: int
    losses: int
    disagreeing: int
    """Judged pairs whose orders disagree."""
    agreeing_only: Counts
    """Wins, ties and losses without those."""
    win_rate_agreeing_only: float | None
    position_bias: float | None
    """Share of the verdicts for one side that went to the answer shown first; 0.5 is none."""
    shown_first_chosen: int
    shown_second_chosen: int
    tie_verdicts: int
    length_bias: float | None
    """Share of the pairs won by one side in which the longer answer won (characters); 0.5 is none."""
    reward_agreement: float | None
    """Share of the pairs won by one side in which the winner also has the higher reward."""
    unparsable_verdicts: int
    refused_verdicts: int
    failed_verdicts: int
    requests: int
    """HTTP requests recorded in the file, of all runs."""

    def to_json(self) -> dict[str, Any]:
        """As JSON-serialisable values."""
        return asdict(self)


def pair_outcomes(verdicts: Iterable[Verdict]) -> list[PairOutcome]:
    """One outcome per pair that has a verdict, by row."""
    by_row: dict[int, list[Verdict]] = defaultdict(list)
    for verdict in newest(verdicts):
        by_row[verdict.pair.row].append(verdict)
    return [_outcome(row, tuple(by_row[row])) for row in sorted(by_row)]


def _outcome(row: int, verdicts: tuple[Verdict, ...]) -> PairOutcome:
    winners = {verdict.winner for verdict in verdicts if verdict.status == "judged"}
    agreed = len(winners) == 1
    wanted = 2 if any(verdict.order == "both" for verdict in verdicts) else 1
    state: State = "judged"
    if any(verdict.status != "judged" for verdict in verdicts):
        state = "failed"
    elif len({verdict.first for verdict in verdicts}) < wanted:
        state = "pending"
    winner: Winner | None = None
    if state == "judged":
        winner = next(iter(winners)) if agreed else "Tie"
    return PairOutcome(row, state, winner, agreed, verdicts)


def summarize(
    verdicts: Sequence[Verdict],
    *,
    model_a: str,
    model_b: str,
    dataset: str,
    judge: str,
    num_pairs: int,
    made_by_a: str | None = None,
    made_by_b: str | None = None,
) -> Summary:
    """Count everything.

    Args:
        verdicts: all verdicts of a file.
        model_a: name of model A's results.
        model_b: of model B's.
        dataset: short name.
        judge: who gave the verdicts; agreement with the reward model means nothing where it is the judge itself.
        num_pairs: pairs that were to be judged.
        made_by_a: the model that wrote A's results, where that is known.
        made_by_b: B's.
    """
    outcomes = pair_outcomes(verdicts)
    judged = [outcome for outcome in outcomes if outcome.state == "judged"]
    failed = sum(outcome.state == "failed" for outcome in outcomes)
    all_judged = _count(judged)
    agreeing = _count([outcome for outcome in judged if outcome.agreed])
    enough = len(judged) >= failed
    last = newest(verdicts)
    shown = Counter(_position(verdict) for verdict in last if verdict.status == "judged" and verdict.replies)
    return Summary(
        model_a=model_a,
        model_b=model_b,
        made_by_a=made_by_a,
        made_by_b=made_by_b,
        dataset=dataset,
        judge=judge,
        pairs=num_pairs,
        judged=len(judged),
        failed=failed,
        pending=num_pairs - len(judged) - failed,
        win_rate=win_rate(all_judged) if enough else None,
        interval=bootstrap_interval(all_judged) if enough else None,
        wins=all_judged.wins,
        ties=all_judged.ties,
        losses=all_judged.losses,
        disagreeing=sum(not outcome.agreed for outcome in judged),
        agreeing_only=agreeing,
        win_rate_agreeing_only=win_rate(agreeing) if enough else None,
        position_bias=_share(shown["first"], shown["first"] + shown["second"]),
        shown_first_chosen=shown["first"],
        shown_second_chosen=shown["second"],
        tie_verdicts=shown["neither"],
        length_bias=_length_bias(judged),
        reward_agreement=None if judge == REWARD_MODEL else _reward_agreement(judged),
        unparsable_verdicts=sum(verdict.status == "unparsable" for verdict in last),
        refused_verdicts=sum(verdict.status == "refused" for verdict in last),
        failed_verdicts=sum(verdict.status == "failed" for verdict in last),
        requests=sum(verdict.requests for verdict in verdicts),
    )


def win_rate(counts: Counts) -> float | None:
    """Share of pairs that A won, ties counting half; None without pairs."""
    return _share(counts.wins + counts.ties / 2, counts.wins + counts.ties + counts.losses)


def bootstrap_interval(counts: Counts) -> tuple[float, float] | None:
    """95 % percentile bootstrap of the win rate.

    A pair scores 1, 1/2 or 0, so resampling pairs is drawing the three counts from a multinomial.
    """
    total = counts.wins + counts.ties + counts.losses
    if total == 0:
        return None
    shares = np.array([counts.wins, counts.ties, counts.losses]) / total
    drawn = np.random.default_rng(BOOTSTRAP_SEED).multinomial(total, shares, size=RESAMPLES)
    rates = (drawn[:, 0] + drawn[:, 1] / 2) / total
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _count(outcomes: Sequence[PairOutcome]) -> Counts:
    found = Counter(outcome.winner for outcome in outcomes)
    return Counts(found["A"], found["Tie"], found["B"])


def _position(verdict: Verdict) -> Literal["first", "second", "neither"]:
    if verdict.winner == "Tie":
        return "neither"
    return "first" if verdict.winner == verdict.first else "second"


def _length_bias(judged: Sequence[PairOutcome]) -> float | None:
    gaps = [
        (outcome.winner, len(outcome.verdicts[0].pair.a.response) - len(outcome.verdicts[0].pair.b.response))
        for outcome in judged
    ]
    decided = [(winner, gap) for winner, gap in gaps if winner != "Tie" and gap != 0]
    return _share(sum((winner == "A") == (gap > 0) for winner, gap in decided), len(decided))


def _reward_agreement(judged: Sequence[PairOutcome]) -> float | None:
    agree = total = 0
    for outcome in judged:
        a, b = (outcome.verdicts[0].pair.answer(side).reward for side in ("A", "B"))
        if outcome.winner == "Tie" or a is None or b is None or a == b:
            continue
        total += 1
        agree += (outcome.winner == "A") == (a > b)
    return _share(agree, total)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def summary_text(summary: Summary) -> str:
    """The summary as lines for a terminal."""
    agreeing = summary.agreeing_only
    rate = _percent(summary.win_rate)
    if summary.interval is not None:
        rate += f"  (95 % interval {_spelled(summary.interval)})"
    elif summary.failed:
        tried = summary.judged + summary.failed
        rate = f"not given: only {summary.judged} of the {tried} pairs that were tried could be judged"
    lines = [
        f"A: {summary.model_a}{_in_brackets(summary.made_by_a)}",
        f"B: {summary.model_b}{_in_brackets(summary.made_by_b)}",
        f"{summary.dataset}, judged by {summary.judge}",
        f"win rate of A        {rate}",
        f"wins/ties/losses     {summary.wins}/{summary.ties}/{summary.losses}; a pair whose orders disagree is a tie",
        f"  without those {summary.disagreeing:4d}  {agreeing.wins}/{agreeing.ties}/{agreeing.losses}, win rate "
        f"{_percent(summary.win_rate_agreeing_only)}",
        f"position bias        {_percent(summary.position_bias)} of verdicts went to the one shown first (50 %: none)",
        f"length bias          {_percent(summary.length_bias)} of won pairs went to the longer answer (50 %: none)",
        f"agrees with reward   {_percent(summary.reward_agreement)} of won pairs",
        f"pairs                {summary.judged} judged, {summary.failed} failed, {summary.pending} pending of "
        f"{summary.pairs}; verdicts unparsable {summary.unparsable_verdicts}, refused {summary.refused_verdicts}, "
        f"failed {summary.failed_verdicts}; {summary.requests} requests",
    ]
    return "\n".join(lines)


def _in_brackets(name: str | None) -> str:
    return f" ({name})" if name else ""


def _percent(share: float | None) -> str:
    return "n/a" if share is None else f"{100 * share:.1f} %"


def _spelled(interval: tuple[float, float]) -> str:
    return f"{100 * interval[0]:.1f} to {100 * interval[1]:.1f} %"

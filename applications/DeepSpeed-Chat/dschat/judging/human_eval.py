"""Lets a person compare two models' answers in the terminal, blind and in random order; `--help` lists the flags.

Every verdict is saved at once, so the program may be left at any time and started again. The records and the summary
are those of gpt4-eval.py.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import termios
import tty
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from dschat.answering.console import set_up_logging, show
from dschat.answering.dataset_names import short_name
from dschat.judging.criteria import EMPTY_ANSWER, find_criteria
from dschat.judging.pairs import load_pairs, other
from dschat.judging.pairwise import Question, missing, questions, write_summary
from dschat.judging.tally import summary_text
from dschat.judging.verdicts import HUMAN, Contest, Verdict, VerdictFile, winner_of

CHOICES = {"1": "A", "2": "B", "3": "E"}
"""What a key says about the answers as they are shown: the first, the second, or neither is better."""
SKIP, UNDO, QUIT = "s", "u", "q"
LEAVE = (QUIT, "\x04", "")
"""q, Ctrl-D, and the end of the input."""
HELP = "1 first is better   2 second is better   3 equally good   s skip   u undo   q save and quit"


def shown_order(asked: Sequence[Question], *, seed: int) -> list[Question]:
    """The questions in a random order that a rerun repeats."""
    shuffled = list(asked)
    random.Random(seed).shuffle(shuffled)
    return shuffled


def ask_person(file: VerdictFile, asked: Sequence[Question], read_key: Callable[[], str], console: Console) -> None:
    """Show one question after the other until all have a verdict or the person leaves.

    Args:
        file: gets each verdict as soon as its key is pressed; undo takes the newest one back.
        asked: all questions of the comparison, in the order in which to show them.
        read_key: waits for a key; "" at the end of the input.
        console: where to show them.
    """
    skipped: set[str] = set()
    while True:
        left = [question for question in missing(asked, file.verdicts) if question.key not in skipped]
        if not left:
            return
        question = left[0]
        _show_question(question, console, done=len(file.verdicts), total=len(asked))
        key = read_key()
        while key not in (*CHOICES, SKIP, UNDO, *LEAVE) or (key == UNDO and not file.verdicts):
            key = read_key()
        if key in LEAVE:
            return
        if key == SKIP:
            skipped.add(question.key)
        elif key == UNDO:
            taken_back = file.drop_last()
            skipped.discard(taken_back.key)
        else:
            file.append(_verdict(question, key))


def _verdict(question: Question, key: str) -> Verdict:
    return Verdict(
        question.key, question.pair, question.first, question.order, status="judged",
        winner=winner_of(CHOICES[key], question.first), replies=(key,),
    )  # fmt: skip


def _show_question(question: Question, console: Console, *, done: int, total: int) -> None:
    pair = question.pair
    console.clear()
    console.print(f"{done} of {total} judged", style="dim")
    console.print(Panel(Text(pair.prompt.strip()), title="prompt", title_align="left", style="dim"))
    for name, side in (("first", question.first), ("second", other(question.first))):
        text = pair.answer(side).response.strip() or EMPTY_ANSWER
        console.print(Panel(Text(text), title=name, title_align="left"))
    console.print(Text(HELP), style="bold")


@contextmanager
def key_reader() -> Iterator[Callable[[], str]]:
    """Yields what reads one key: without waiting for Enter in a terminal, the first letter of a line elsewhere."""
    if not sys.stdin.isatty():
        yield lambda: line[:1] if (line := sys.stdin.readline()) else ""
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    # for the whole session, so that a key that is pressed while a screen is drawn is not lost
    tty.setcbreak(number, termios.TCSADRAIN)
    try:
        # not sys.stdin, which would keep keys that were pressed ahead
        yield lambda: os.read(number, 1).decode("latin-1")
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="human-eval.py",
        description="Compare two models' answers, blind.",
        epilog=HELP,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("--model_a", "--model_name_a", type=Path, required=True, metavar="FILE", help="model A's results (.jsonl)")
    add("--model_b", "--model_name_b", type=Path, required=True, metavar="FILE", help="model B's results")
    add("--dataset", required=True, help="summarize, pydoc-tldr, hh-rlhf or webgpt; kept with the verdicts")
    add("--output", type=Path, required=True, metavar="FILE", help="verdicts; <FILE>.summary.json gets the numbers")
    add("--num_sample", type=int, default=50, help="pairs to judge, from the first row on (default: 50)")
    add("--seed", type=int, default=42, help="of the order and the sides; keep it when you go on (default: 42)")
    return parser.parse_args(argv)


def main() -> None:
    """Ask, then sum up."""
    arguments = parse_arguments(sys.argv[1:])
    set_up_logging()
    find_criteria(arguments.dataset)
    pairs = load_pairs(
        arguments.model_a, arguments.model_b, num_sample=arguments.num_sample, flags=("model_a", "model_b")
    )
    contest = Contest(
        str(arguments.model_a), str(arguments.model_b), short_name(arguments.dataset), judge=HUMAN, template=""
    )
    asked = shown_order(questions(pairs, contest, order="random", seed=arguments.seed), seed=arguments.seed)
    with VerdictFile(arguments.output, contest, pairs) as file:
        with key_reader() as read_key, suppress(KeyboardInterrupt):
            ask_person(file, asked, read_key, Console(highlight=False))
        summary = write_summary(file, pairs, arguments.output)
    show(summary_text(summary))

"""Has a judge compare two models' answers. `python evaluation/gpt4-eval.py --help` lists the flags.

Both files come from inference/inference_with_rewards.py, or from evaluation/tools/sample_from_dataset.py with one seed.
Every verdict is appended to --output at once; a rerun asks only for what is missing.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from dschat.answering.console import progress_bar, set_up_logging, show
from dschat.answering.dataset_names import short_name
from dschat.errors import UserError
from dschat.judging.criteria import Criteria, find_criteria
from dschat.judging.judges import Budget, BudgetUsedUp, OpenAIJudge
from dschat.judging.pairs import load_pairs
from dschat.judging.pairwise import (
    Question,
    ask_all,
    judge_by_model,
    judge_by_reward,
    missing,
    questions,
    write_summary,
)
from dschat.judging.redaction import printable, shown_url
from dschat.judging.tally import summary_text
from dschat.judging.verdicts import REWARD_MODEL, Contest, Order, Verdict, VerdictFile, newest

logger = logging.getLogger(__name__)

PUBLISHED_JUDGE = "gpt-4o-2024-05-13"
KEY_VARIABLE = "OPENAI_API_KEY"
URL_VARIABLE = "OPENAI_BASE_URL"
MAX_TOKENS = 4096
"""Thinking takes a judge hundreds to a few thousand tokens; and the published judge writes no more than these, so that
a higher limit is refused."""
UNREADABLE_IN_A_ROW = 5
"""Replies without a verdict after which one of them is shown."""
SHOWN_CHARACTERS = 200
UNFINISHED_STATUS = 75
"""Exit status (EX_TEMPFAIL) where a rerun can get verdicts that are missing now."""
INTERRUPTED_STATUS = 130


def parse_arguments(argv: list[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="gpt4-eval.py", description="Has a judge compare two models' answers, pair by pair.", allow_abbrev=False
    )
    add = parser.add_argument
    add("--model_name_a", type=Path, required=True, metavar="FILE", help="model A's results (.jsonl)")
    add("--model_name_b", type=Path, required=True, metavar="FILE", help="model B's results on the same prompts")
    add("--dataset", required=True, help="summarize, pydoc-tldr, hh-rlhf or webgpt: what the judge is asked")
    add("--output", type=Path, required=True, metavar="FILE", help="verdicts; <FILE>.summary.json gets the numbers")
    add("--num_sample", type=int, default=50, help="pairs to judge, from the first row on (default: 50)")
    add(
        "--judge",
        choices=("openai", REWARD_MODEL),
        default="openai",
        help="openai: a language model behind any compatible server; reward-model: the rewards in the files",
    )
    add("--judge_model", default=PUBLISHED_JUDGE, help=f"the judge's name at the server (default: {PUBLISHED_JUDGE})")
    add("--base_url", metavar="URL", help="server, such as http://localhost:8000/v1 (default: OpenAI's)")
    add("--sk", nargs="?", const="", metavar="KEY", help=f"API key; better set {KEY_VARIABLE}: others see this one")
    add(
        "--order",
        choices=("both", "random", "fixed"),
        default="both",
        help="which answer is shown first: both ways (two questions a pair), drawn from --seed, or always A",
    )
    add("--seed", type=int, default=42, help="of --order random (default: 42)")
    add("--concurrency", type=int, default=8, help="requests under way at a time (default: 8)")
    add("--timeout", type=float, default=60.0, help="seconds until a request is given up (default: 60)")
    add(
        "--max_tokens",
        type=int,
        default=MAX_TOKENS,
        help="longest reply, thinking included; a judge that does not think uses and costs a fraction of it "
        f"(default: {MAX_TOKENS})",
    )
    add("--max_retries", type=int, default=6, help="further attempts after 429, 5xx, timeouts (default: 6)")
    add(
        "--retry_unparsable",
        action="store_true",
        help="ask again where an earlier run got a reply without a verdict, or the server refused the question",
    )
    add("--max_requests", type=int, metavar="N", help="make no more than N requests in this run")
    found = parser.parse_args(argv)
    _check(found)
    return found


def _check(found: argparse.Namespace) -> None:
    least_values = {"concurrency": 1, "max_tokens": 1, "max_retries": 0, "max_requests": 0, "num_sample": 1}
    for name, least in least_values.items():
        value = getattr(found, name)
        if value is not None and value < least:
            raise UserError(f"--{name} must be at least {least}, got {value}")
    if found.timeout <= 0:
        raise UserError(f"--timeout must be more than 0 seconds, got {found.timeout}")


def main() -> None:
    """Judge what is missing, then sum up."""
    set_up_logging()
    arguments = parse_arguments(sys.argv[1:])
    criteria = find_criteria(arguments.dataset)
    pairs = load_pairs(
        arguments.model_name_a,
        arguments.model_name_b,
        num_sample=arguments.num_sample,
        flags=("model_name_a", "model_name_b"),
    )
    by_reward = arguments.judge == REWARD_MODEL
    contest = Contest(
        model_a=str(arguments.model_name_a),
        model_b=str(arguments.model_name_b),
        dataset=short_name(arguments.dataset),
        judge=REWARD_MODEL if by_reward else arguments.judge_model,
        template="" if by_reward else criteria.name,
    )
    # the key first: without one, nothing is left behind
    judge = None if by_reward else open_judge(arguments)
    order: Order = "fixed" if by_reward else arguments.order
    with VerdictFile(arguments.output, contest, pairs) as file:
        asked = questions(pairs, contest, order=order, seed=arguments.seed)
        todo = missing(asked, file.verdicts, retry_unparsable=arguments.retry_unparsable)
        if len(todo) < len(asked):
            logger.info("%d of %d verdicts are there already", len(asked) - len(todo), len(asked))
        status = 0
        mistake: UserError | None = None
        try:
            judge_all(file, todo, judge, criteria, concurrency=arguments.concurrency)
        except UserError as error:
            mistake = error
        except BudgetUsedUp:
            logger.warning("--max_requests %d is used up; run the same command again to go on", arguments.max_requests)
        except KeyboardInterrupt:
            logger.warning("stopped; run the same command again to go on")
            status = INTERRUPTED_STATUS
        summary = write_summary(file, pairs, arguments.output)
    show(summary_text(summary))
    if mistake is not None:
        raise mistake
    if status == 0 and (summary.pending or (summary.failed_verdicts and judge is not None)):
        status = UNFINISHED_STATUS
    if status == 0 and summary.judged == 0:
        raise UserError(f"no pair could be judged: {_why_none(newest(file.verdicts))}")
    sys.exit(status)


def judge_all(
    file: VerdictFile, todo: list[Question], judge: OpenAIJudge | None, criteria: Criteria, *, concurrency: int
) -> None:
    """Ask for verdicts and put them into the file; without a judge the reward model's scores decide.

    Raises:
        BudgetUsedUp, KeyboardInterrupt, UserError: the run ended early; what was answered is in the file.
    """
    unreadable = 0
    with progress_bar("judging", len(todo)) as advance:

        def record(verdict: Verdict) -> None:
            nonlocal unreadable
            file.append(verdict)
            advance(1)
            unreadable = unreadable + 1 if verdict.status == "unparsable" else 0
            if unreadable == UNREADABLE_IN_A_ROW:
                logger.warning("%d replies in a row hold no verdict: %s", unreadable, _what_was_said(verdict))

        if judge is None:
            for question in todo:
                record(judge_by_reward(question))
        else:
            ask = partial(judge_by_model, judge=judge, criteria=criteria)
            ask_all(todo, ask, record, concurrency=concurrency, stop=judge.stop)


def _what_was_said(verdict: Verdict) -> str:
    """Why a reply could not be read, and its beginning."""
    said = printable(verdict.replies[-1][:SHOWN_CHARACTERS]) if verdict.replies else ""
    return f"{verdict.problem}; the judge said: '{said}'; expected A, B or E"


def _why_none(verdicts: Sequence[Verdict]) -> str:
    """Why no pair has a verdict in each order, from one question without."""
    verdict = next(verdict for verdict in verdicts if verdict.status != "judged")
    if verdict.status == "unparsable":
        return f"{_what_was_said(verdict)}; pass another --judge_model, then --retry_unparsable or another --output"
    return f"{verdict.problem}"


def open_judge(arguments: argparse.Namespace) -> OpenAIJudge:
    """The judge that the flags describe.

    Raises:
        UserError: there is no key, it or the server's address cannot be one, or the client is not installed.
    """
    if arguments.sk:
        logger.warning("--sk shows the API key to everybody who can list processes; set %s instead", KEY_VARIABLE)
    key = (arguments.sk or os.environ.get(KEY_VARIABLE) or "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(f"the API key holds characters that no key can have; set {KEY_VARIABLE} again")
    base_url = arguments.base_url or os.environ.get(URL_VARIABLE) or None
    if base_url is not None:
        _check_url(base_url, flag="--base_url" if arguments.base_url else URL_VARIABLE)
    if base_url is not None and arguments.base_url is None:
        logger.info("questions go to %s, as %s says", shown_url(base_url), URL_VARIABLE)
    if not key and base_url is None:
        raise UserError(
            f"there is no API key; set {KEY_VARIABLE}, name your own server with --base_url, or let the rewards in the "
            f"files decide with --judge {REWARD_MODEL}"
        )
    return OpenAIJudge(
        model=arguments.judge_model,
        api_key=key or None,
        base_url=base_url,
        timeout=arguments.timeout,
        max_tokens=arguments.max_tokens,
        max_retries=arguments.max_retries,
        budget=Budget(arguments.max_requests),
    )


def _check_url(url: str, *, flag: str) -> None:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise UserError(f"{flag} is no address of a server; pass one such as http://localhost:8000/v1")

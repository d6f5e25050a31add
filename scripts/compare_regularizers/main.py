"""Does a penalty by meaning do what it promises? Trains the built-in task with several regularizers and compares them.

    bash scripts/quickstart.sh
    python scripts/compare_regularizers.py --models runs/quickstart --output runs/comparison --jobs 2

Starts from the checkpoints in --models (sft/ and reward/). Every run is measured alike: reward on held-out prompts,
exact KL to the reference, one common Wasserstein distance (capped, debiased), and how close in meaning its likely
tokens are. Leaves results.jsonl, comparison.png, comparison.md and answer.png; an interrupted comparison goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from compare_regularizers.report import draw_answer, draw_comparison, finished, markdown
from compare_regularizers.runs import VARIANTS, Run, Settings, train_and_measure
from dschat.errors import UserError

STRENGTHS = (0.02, 0.1, 0.5)
FIRST_SEED = 1
RESULTS, SETTINGS = "results.jsonl", "settings.json"


def grid(regularizers: Sequence[str], strengths: Sequence[float], seeds: int) -> list[Run]:
    """All runs; without a penalty there is no strength. Seeds vary slowest, so that an early stop is a smaller grid."""
    return [
        Run(name, strength, seed)
        for seed in range(FIRST_SEED, FIRST_SEED + seeds)
        for name in regularizers
        for strength in ((0.0,) if name == "none" else strengths)
    ]


def read_results(output: Path) -> list[dict[str, Any]]:
    """The finished runs of a comparison, in the order in which they finished; none where it has not begun."""
    path = output / RESULTS
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON; remove the line, and the run is made again") from error
    return found


def begin(settings: Settings) -> None:
    """Make the output folder, or check that the comparison in it has the same settings; UserError where not."""
    models, output = Path(settings.models), Path(settings.output)
    for name, step in (("sft", "step 1"), ("reward", "step 2")):
        if not (models / name / "config.json").is_file():
            raise UserError(
                f"--models {models}: there is no model in {models / name}, which {step} of the quickstart writes; "
                "run scripts/quickstart.sh first"
            )
    output.mkdir(parents=True, exist_ok=True)
    path, ours = output / SETTINGS, asdict(settings)
    if path.is_file():
        theirs = json.loads(path.read_text(encoding="utf-8"))
        differing = [name for name in ours if theirs.get(name) != ours[name]]
        if differing:
            raise UserError(
                f"--output {output} holds a comparison with other settings ({', '.join(differing)}); name a new folder"
            )
    path.write_text(json.dumps(ours, indent=2) + "\n", encoding="utf-8")


def run_all(settings: Settings, runs: Sequence[Run], *, jobs: int) -> Iterator[dict[str, Any]]:
    """Train the runs in `jobs` processes and yield each result as it is there.

    Raises:
        UserError: a process was killed; finished runs are kept.
    """
    # DeepSpeed must not be forked; fewer processes than runs, because a process takes seconds to start
    context = multiprocessing.get_context("spawn")
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, len(os.sched_getaffinity(0)) // jobs)))
    with ProcessPoolExecutor(jobs, mp_context=context, initializer=prepare_worker, initargs=(threads,)) as pool:
        futures = [pool.submit(train_and_measure, settings, run) for run in runs]
        try:
            for future in as_completed(futures):
                yield future.result()
        except BrokenProcessPool as error:
            raise UserError(
                "a training process was killed, perhaps for lack of memory; run the same command again to go on, with "
                "a smaller --jobs"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def prepare_worker(threads: int) -> None:
    """Give a process its share of the cores, and no network."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": str(threads)}
    import torch

    torch.set_num_threads(threads)


def report(output: Path, console: Console) -> None:
    """Write the pictures and tables of everything that is finished, and show the tables."""
    results = read_results(output)
    if not finished(results):
        raise UserError(f"--output {output} holds no finished run; leave --report_only out")
    text = markdown(results)
    (output / "comparison.md").write_text(text, encoding="utf-8")
    draw_comparison(output / "comparison.png", results)
    shown = drifted_farthest(results)
    trace = json.loads((output / "runs" / shown.name / "answer.json").read_text(encoding="utf-8"))
    title = f"one held-out answer; policy: {VARIANTS[shown.regularizer].title}, strength {shown.strength:g}"
    draw_answer(output / "answer.png", trace, title=title)
    console.print(Markdown(text))
    console.print(f"wrote comparison.md, comparison.png and answer.png in {output}", style="dim")


def drifted_farthest(results: Sequence[dict[str, Any]]) -> Run:
    """The finished run with a penalty (if any) that went farthest from the reference in KL: most to see in it."""
    done = finished(results)
    penalized = [result for result in done if result["regularizer"] != "none"] or done
    farthest = max(penalized, key=lambda result: result["own"]["kl"])
    return Run(farthest["regularizer"], farthest["strength"], farthest["seed"])


def compare(options: argparse.Namespace, console: Console) -> None:
    """The whole comparison."""
    if options.report_only:
        report(options.output, console)
        return
    for flag in ("seeds", "steps", "batch", "jobs", "eval_prompts"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    if min(options.strengths) <= 0:
        raise UserError(
            f"--strengths must be above 0, got {min(options.strengths):g}; none is a regularizer of its own"
        )
    settings = Settings(
        models=str(options.models.expanduser().absolute()), output=str(options.output.expanduser().absolute()),
        steps=options.steps, batch=options.batch, eval_prompts=options.eval_prompts, fast=options.fast,
    )  # fmt: skip
    begin(settings)
    runs = grid(options.regularizers, options.strengths, options.seeds)
    done = {Run(r["regularizer"], r["strength"], r["seed"]) for r in read_results(options.output)}
    missing = [run for run in runs if run not in done]
    console.print(f"{len(runs)} runs of {options.steps} steps, {len(runs) - len(missing)} of them finished already")
    with (options.output / RESULTS).open("a", encoding="utf-8") as file:
        results = run_all(settings, missing, jobs=min(options.jobs, len(missing))) if missing else iter(())
        for number, result in enumerate(results, start=1):
            file.write(json.dumps(result) + "\n")
            file.flush()
            console.print(f"{number}/{len(missing)}  {_line(result)}")
    report(options.output, console)


def _line(result: dict[str, Any]) -> str:
    name = f"{VARIANTS[result['regularizer']].title:20} strength {result['strength']:<5g} seed {result['seed']}"
    if "fault" in result:
        return f"{name}  ended early: {result['fault']}"
    own = result["own"]
    numbers = f"reward {own['reward']:+.3f}  KL {own['kl']:.4f}  Wasserstein {own['wasserstein']:.4f}"
    return f"{name}  {numbers}  {result['seconds']:.0f} s"


def main() -> None:
    """Read the command line and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, default=Path("runs/quickstart"), help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=Path("runs/comparison"), help="default: %(default)s")
    parser.add_argument(
        "--regularizers", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME",
        help=f"of {', '.join(VARIANTS)}; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--strengths", nargs="+", type=float, default=list(STRENGTHS), metavar="X",
        help="beta in units of each penalty's own scale, so that all act about equally; default: 0.02 0.1 0.5",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=40, help="PPO steps per run (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="prompts per PPO step (default: %(default)s)")
    parser.add_argument("--eval_prompts", type=int, default=64, help="held-out prompts (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--fast", action="store_true", help="short texts, for the --models of quickstart.sh --fast")
    parser.add_argument("--report_only", action="store_true", help="draw again from the finished runs")
    options = parser.parse_args()
    console = Console()
    console = console if console.is_terminal else Console(width=140)
    compare(options, console)

"""What is gained by leaving out padding: PPO steps on the quickstart's training prompts, with all of it and without.

    python scripts/bench/padding.py --models runs/quickstart --output padding.json

"whole" scores and trains on rows as wide as the batch; "trimmed" is what step 3 does: rows of similar length together,
without the columns that none of them needs. Both run alternately on the same batches with the same random numbers,
with KL, from the same weights (the learning rate is too small to change them). Reported are medians over the rounds,
real tokens per second, and the largest relative difference of any metric that is not a time.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dschat.data.batches import PromptBatch
from dschat.errors import UserError, run_guarded
from measure import environment, wide_console
from ppo_step import build, step_config
from quickstart_prompts import check_quickstart, quickstart_batches

if TYPE_CHECKING:
    from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer

KINDS = ("whole", "trimmed")
SPEEDS = tuple(f"{part}_tokens_per_second" for part in ("generation", "scoring", "training"))
TIMES = ("generation_seconds", "scoring_seconds", "training_seconds")


@contextmanager
def all_padding() -> Iterator[None]:
    """Within the body rows keep all the padding of their batch."""
    from dschat.rlhf import scoring
    from dschat.rlhf.experience import Experience
    from dschat.rlhf.reward_sources import learned_model
    from dschat.rlhf.row_groups import RowGroup

    def one_group(attention_mask: Tensor, *, width: int, **_: object) -> list[RowGroup]:
        rows, columns = attention_mask.shape
        return [RowGroup(torch.arange(rows, device=attention_mask.device), slice(0, columns), width)]

    with ExitStack() as patches:
        for module in (scoring, learned_model):
            patches.enter_context(mock.patch.object(module, "group_rows", one_group))
        patches.enter_context(mock.patch.object(Experience, "trimmed", lambda self: self))
        yield


def run_step(trainer: DeepSpeedPPOTrainer, prompts: PromptBatch, device: torch.device, *, seed: int) -> dict[str, Any]:
    """The metrics of one PPO step."""
    torch.manual_seed(seed)
    made = trainer.generate_experience(prompts, step=seed + 1)
    return (made.sums + trainer.train_rlhf([made.experience], step=seed + 1).sums).means(device)


def largest_difference(left: dict[str, float], right: dict[str, float]) -> float:
    """Of any metric but times and rates, relative to the larger value, or to 1 where both are smaller."""
    return max(
        abs(left[name] - right[name]) / max(1.0, abs(left[name]), abs(right[name]))
        for name in left
        if not name.endswith(("seconds", "per_second"))
    )


def measure(options: argparse.Namespace, console: Console) -> None:
    """Build, warm up, alternate, report."""
    if options.batch % options.micro_batch:
        raise UserError(
            f"--micro_batch {options.micro_batch} does not divide --batch {options.batch}; choose a divisor"
        )
    options.models = options.models.expanduser().absolute()
    check_quickstart(options.models)
    config = step_config(options, options.models, "kl", {"f_div": "rkl"})
    bench = build({"kl": config}, options.models)
    trainer, batches, rounds = bench.trainers["kl"], quickstart_batches(options.models, config), []
    for number in range(options.rounds + 1):
        prompts, metrics = next(batches), {}
        # neither always comes first
        for kind in KINDS if number % 2 else KINDS[::-1]:
            with all_padding() if kind == "whole" else ExitStack():
                metrics[kind] = run_step(trainer, prompts, bench.device, seed=number)
        if number:  # the first round warms up
            rounds.append(metrics)
    report(options, rounds, bench.device, console)


def report(
    options: argparse.Namespace, rounds: Sequence[dict[str, dict[str, float]]], device: torch.device, console: Console
) -> None:
    """Show the table and the largest difference, and write the JSON file."""

    def median(kind: str, *names: str) -> float:
        return statistics.median(sum(one[kind][name] for name in names) for one in rounds)

    table = Table()
    for name in ("padding", "step, ms", *(f"{speed.split('_')[0]}, tokens/s" for speed in SPEEDS)):
        table.add_column(name, justify="left" if name == "padding" else "right")
    for kind in KINDS:
        table.add_row(kind, f"{1000 * median(kind, *TIMES):.0f}", *(f"{median(kind, name):,.0f}" for name in SPEEDS))
    console.print(table)
    ratio = statistics.median(
        sum(one["trimmed"][name] for name in TIMES) / sum(one["whole"][name] for name in TIMES) for one in rounds
    )
    difference = max(largest_difference(one["trimmed"], one["whole"]) for one in rounds)
    console.print(f"trimmed / whole: {ratio:.2f}; largest relative difference of a metric: {difference:.1e}")
    if options.output:
        document = {
            "settings": {name: str(value) for name, value in vars(options).items()}, "machine": environment(device),
            "ratio": ratio, "difference": difference, "rounds": list(rounds),
        }  # fmt: skip
        options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder of a finished quickstart")
    parser.add_argument("--batch", type=int, default=32, help="prompts per step (default: %(default)s)")
    parser.add_argument("--micro_batch", type=int, default=16, help="rows per training pass (default: %(default)s)")
    parser.add_argument("--prompt_tokens", type=int, default=192, help="at most (default: %(default)s)")
    parser.add_argument("--answer_tokens", type=int, default=32, help="at most (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.dtype, options.gradient_checkpointing = "fp32", False
    run_guarded(lambda: measure(options, wide_console()))


if __name__ == "__main__":
    main()

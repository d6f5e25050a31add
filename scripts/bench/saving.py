"""What saving costs: steps 1 and 3 of the quickstart with --save_steps 10 and without, in one process.

    python scripts/bench/saving.py --models runs/quickstart

Each step runs twice on the quickstart's models and data. The time between two steps is what metrics.jsonl leaves
between `run_seconds` and `step_seconds`; that after a saving step, less the median of the others, is the save.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.table import Table

from dschat.config.regularizers import DivergenceConfig
from dschat.config.steps import parse_ppo_config, parse_sft_config
from dschat.errors import UserError, run_guarded
from dschat.runtime.files import MIB

STEPS = ("SFT", "PPO")
SAVE_STEPS = 10
COMMON = (
    "--data_path pydoc-tldr --data_split 2,4,4 --dtype fp32 --num_train_epochs 9 --data_output_path {cache} "
    "--output_dir {output} --max_steps {steps} --save_steps {save_steps}"
)
# the batches of the quickstart, on one device
FLAGS = {
    "SFT": "--model_name_or_path {models}/sft --per_device_train_batch_size 16 --max_seq_len 256 --eval_iters 1",
    "PPO": "--actor_model_name_or_path {models}/sft --critic_model_name_or_path {models}/reward "
    "--max_prompt_seq_len 192 --max_answer_seq_len 32 --temperature 0.8 --sampling_top_k 50 "
    "--per_device_generation_batch_size 32 --per_device_training_batch_size 16 --gradient_accumulation_steps 2",
}


@dataclass(frozen=True)
class Cost:
    """What one step of the pipeline takes, and what saving adds."""

    step_seconds: float
    """Mean wall time from one step to the next, without saving."""
    saving_step_seconds: float
    """The same with --save_steps 10, the saves included."""
    save_seconds: float
    """Mean of a save: in step 1 a state, in step 3 a state and the models."""
    state_bytes: int
    """Of one state on disk."""

    @property
    def share(self) -> float:
        """Of the training time that goes into saves."""
        return self.save_seconds / (SAVE_STEPS * self.step_seconds)


def measure(step: str, models: Path, steps: int, folder: Path) -> Cost:
    """Run a step without and with saving."""
    lines = {every: train(step, models, steps, every, folder) for every in (0, SAVE_STEPS)}
    state = folder / f"{step}-{SAVE_STEPS}" / "state" / f"step-{steps}"
    return Cost(
        step_seconds=mean_step(lines[0]),
        saving_step_seconds=mean_step(lines[SAVE_STEPS]),
        save_seconds=mean_save(lines[SAVE_STEPS]),
        state_bytes=sum(path.stat().st_size for path in state.rglob("*") if path.is_file()),
    )


def train(step: str, models: Path, steps: int, save_steps: int, folder: Path) -> list[dict[str, float]]:
    """Train and return the lines of metrics.jsonl, but for evaluation before training."""
    from dschat.offline.sft import run_sft
    from dschat.rlhf.run_ppo import run_ppo

    output = folder / f"{step}-{save_steps}"
    words = f"{COMMON} {FLAGS[step]}".format(
        cache=folder / "cache", output=output, steps=steps, save_steps=save_steps, models=models
    )
    if step == "SFT":
        run_sft(parse_sft_config(words.split()))
    else:
        run_ppo(parse_ppo_config(words.split(), regularizer=DivergenceConfig))
    lines = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["step"] > 0]


def mean_step(lines: Sequence[Mapping[str, float]]) -> float:
    """Mean seconds from the end of one step to the end of the next, what lies between included."""
    return (lines[-1]["run_seconds"] - lines[0]["run_seconds"]) / (len(lines) - 1)


def mean_save(lines: Sequence[Mapping[str, float]]) -> float:
    """Mean seconds between two steps where a state is saved, beyond the median where none is."""
    between = {
        before["step"]: after["run_seconds"] - before["run_seconds"] - after["step_seconds"]
        for before, after in pairwise(lines)
    }
    saves = [seconds for step, seconds in between.items() if step % SAVE_STEPS == 0]
    others = [seconds for step, seconds in between.items() if step % SAVE_STEPS]
    return statistics.mean(saves) - statistics.median(others)


def show(found: Mapping[str, Cost], console: Console) -> None:
    """One row per step of the pipeline."""
    table = Table()
    columns = (
        "step, ms",
        f"step with --save_steps {SAVE_STEPS}, ms",
        "a save, ms",
        "share of the time",
        "a state, MiB",
    )
    for column in ("", *columns):
        table.add_column(column, justify="right" if column else "left")
    for name, cost in found.items():
        times = (cost.step_seconds, cost.saving_step_seconds, cost.save_seconds)
        cells = (f"{1000 * seconds:,.0f}" for seconds in times)
        table.add_row(name, *cells, f"{100 * cost.share:.1f} %", f"{cost.state_bytes / MIB:.1f}")
    console.print(table)


def run(options: argparse.Namespace) -> None:
    """Measure both steps."""
    if not (options.models / "reward/config.json").is_file():
        raise UserError(f"--models {options.models} holds no reward/; pass a folder that scripts/quickstart.sh wrote")
    if options.steps <= SAVE_STEPS:
        raise UserError(f"--steps must be above {SAVE_STEPS}, got {options.steps}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        models = options.models.expanduser().absolute()
        found = {step: measure(step, models, options.steps, folder) for step in STEPS}
    show(found, Console(width=120))


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="folder that scripts/quickstart.sh wrote")
    parser.add_argument("--steps", type=int, default=31, help="of each run (default: %(default)s)")
    options = parser.parse_args()
    run_guarded(lambda: run(options))


if __name__ == "__main__":
    main()

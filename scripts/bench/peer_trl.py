"""How long a PPO step takes here and in TRL, alternately in one process, on the same models, prompts and lengths.

    python -m venv trl_venv && trl_venv/bin/pip install -c requirements.lock -e . trl==1.10.0
    trl_venv/bin/python scripts/bench/peer_trl.py --models runs/quickstart --output peer_trl.json

TRL is needed for this comparison alone, so it has an environment of its own. Both sides sample answers, score them with
reference, critic and reward model, and make one optimizer step of both models on the same number of micro-batches, in
float32, with KL and without top-k. No token ends an answer, so that both sides' answers have the same length. The
learning rate is too small to change the weights. With --models they and the prompts are those of a quickstart: its
training prompts in the batches and with the left padding of its step 3. Without it both are random, the weights of the
quickstart's size. Reported are medians over the rounds, and the median of the ratios within rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dschat.config.steps import PPOConfig
from dschat.data.batches import PromptBatch
from dschat.errors import UserError, run_guarded
from measure import environment, wide_console
from ppo_step import (
    UNCHANGING_LEARNING_RATE,
    Bench,
    build,
    random_prompts,
    step_config,
    synchronize,
    time_step,
    write_random_models,
)
from quickstart_prompts import check_quickstart, quickstart_batches

TARGET = 0.7
TEMPERATURE = 0.8


def trl_step(
    options: argparse.Namespace, models: Path, unused: Path, device: torch.device
) -> Callable[[PromptBatch], None]:
    """A function that runs one PPO step of TRL's trainer on a batch of prompts; `unused` is its output folder."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, PrinterCallback
    from trl.experimental.ppo import PPOConfig as TRLConfig
    from trl.experimental.ppo import PPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(models / "sft", padding_side="left")
    settings = TRLConfig(
        output_dir=str(unused), report_to="none", save_strategy="no", disable_tqdm=True, bf16=False, fp16=False,
        use_cpu=device.type == "cpu", num_sample_generations=0, total_episodes=options.batch, num_ppo_epochs=1,
        num_mini_batches=1, per_device_train_batch_size=options.micro_batch,
        gradient_accumulation_steps=options.batch // options.micro_batch,
        local_rollout_forward_batch_size=options.batch, response_length=options.answer_tokens,
        temperature=TEMPERATURE, stop_token=None, learning_rate=UNCHANGING_LEARNING_RATE, gradient_checkpointing=False,
    )  # fmt: skip
    policy, reference = (AutoModelForCausalLM.from_pretrained(models / "sft", dtype=torch.float32) for _ in range(2))
    value, reward = (
        AutoModelForSequenceClassification.from_pretrained(models / "reward", dtype=torch.float32) for _ in range(2)
    )
    rows: dict[str, Any] = {"input_ids": [[0] * options.prompt_tokens] * options.batch}
    trainer = PPOTrainer(
        args=settings, processing_class=tokenizer, model=policy, ref_model=reference, reward_model=reward,
        value_model=value, train_dataset=Dataset.from_dict(rows),
    )  # fmt: skip
    trainer.remove_callback(PrinterCallback)

    def step(prompts: PromptBatch) -> None:
        trainer.dataloader = [{"input_ids": prompts.input_ids}]
        trainer.train()

    return step


def our_step(bench: Bench) -> Callable[[PromptBatch], None]:
    """The same for this project's trainer."""

    def step(prompts: PromptBatch) -> None:
        time_step(bench.trainers["kl"], prompts, bench.device, seed=0)

    return step


def prompt_batches(options: argparse.Namespace, config: PPOConfig, vocab_size: int) -> Iterator[PromptBatch]:
    """A batch for every round: of the quickstart, or random."""
    if options.models:
        return quickstart_batches(options.models, config)
    return (random_prompts(options, vocab_size, seed=number) for number in itertools.count())


def timed(step: Callable[[PromptBatch], None], prompts: PromptBatch, device: torch.device, *, seed: int) -> float:
    """Seconds of one step."""
    torch.manual_seed(seed)
    synchronize(device)
    started = time.perf_counter()
    step(prompts)
    synchronize(device)
    return time.perf_counter() - started


def measure(options: argparse.Namespace, console: Console) -> None:
    """Build both sides, warm up, alternate, report."""
    if importlib.util.find_spec("trl") is None:
        raise UserError("this comparison needs TRL: pip install trl==1.10.0, best in an environment of its own")
    if options.batch % options.micro_batch:
        raise UserError(
            f"--micro_batch {options.micro_batch} does not divide --batch {options.batch}; choose a divisor"
        )
    if options.models:
        options.models = options.models.expanduser().absolute()
        check_quickstart(options.models)
    with tempfile.TemporaryDirectory() as scratch:
        models = options.models or Path(scratch)
        if not options.models:
            write_random_models(models, None)
        config = step_config(options, models, "kl", {"f_div": "rkl", "sampling_top_k": 0, "temperature": TEMPERATURE})
        bench = build({"kl": config}, models, never_end=True)
        device = bench.device
        sides = [("dschat", our_step(bench)), ("trl", trl_step(options, models, Path(scratch) / "trl", device))]
        rounds, lengths = [], []
        batches = prompt_batches(options, config, bench.vocab_size)
        for number in range(options.rounds + 1):
            prompts = next(batches).to(device)
            # neither side always comes first
            order = sides if number % 2 else sides[::-1]
            seconds = {name: timed(step, prompts, device, seed=number) for name, step in order}
            if number:  # the first round warms up
                rounds.append(seconds)
                lengths += prompts.attention_mask.sum(dim=-1).tolist()
    report(options, rounds, lengths, device, console)


def report(
    options: argparse.Namespace,
    rounds: Sequence[dict[str, float]],
    lengths: Sequence[int],
    device: torch.device,
    console: Console,
) -> None:
    """Show the table and the ratio, and write the JSON file."""
    medians = {name: statistics.median(one[name] for one in rounds) for name in ("dschat", "trl")}
    ratios = sorted(one["dschat"] / one["trl"] for one in rounds)
    console.print(
        f"One PPO step: {options.batch} prompts of {min(lengths)} to {max(lengths)} tokens (median "
        f"{statistics.median(lengths):.0f}), answers of {options.answer_tokens}, float32; medians of {len(rounds)} "
        "rounds"
    )
    table = Table()
    table.add_column("trainer")
    table.add_column("ms", justify="right")
    for name, seconds in medians.items():
        table.add_row(name if name == "dschat" else f"trl {metadata.version('trl')}", f"{1000 * seconds:.0f}")
    console.print(table)
    ratio = statistics.median(ratios)
    console.print(f"dschat / TRL: {ratio:.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f}); target {TARGET}")
    if options.output:
        document = {
            "settings": {name: str(value) for name, value in vars(options).items()},
            "machine": environment(device)
            | {name: metadata.version(name) for name in ("trl", "transformers", "deepspeed")},
            "medians": medians, "ratio": ratio, "ratios": ratios, "target": TARGET, "rounds": list(rounds),
        }  # fmt: skip
        options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--models", type=Path, help="folder of a finished quickstart: its models and training prompts")
    source.add_argument("--shortest_prompt", type=int, help="random prompts of this to --prompt_tokens tokens")
    parser.add_argument("--batch", type=int, default=32, help="prompts per step (default: %(default)s)")
    parser.add_argument("--micro_batch", type=int, default=16, help="rows per training pass (default: %(default)s)")
    parser.add_argument("--prompt_tokens", type=int, default=192, help="at most (default: %(default)s)")
    parser.add_argument("--answer_tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=9, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.dtype, options.gradient_checkpointing = "fp32", False
    run_guarded(lambda: measure(options, wide_console()))


if __name__ == "__main__":
    main()

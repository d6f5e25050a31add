"""Runs the three steps with the deepspeed launcher on a small model and reports what was learned.

Started by quickstart.sh, which sets up the environment; `bash scripts/quickstart.sh --help` lists the options.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from rich.console import Console

from quickstart.options import ROOT, SUMMARY_NAME, Options, parse_options
from quickstart.stages import TRAINING, Flags, Stage, batch_flags, count_ranks, run_command, run_stage
from quickstart.surroundings import library_versions, make_first_model, prepare_output, run_to_exit, set_up_logging

DATASET = "pydoc-tldr"
RESULTS = ("model", "sft", "reward", "kl", "wasserstein", "logs", "data_cache", "answers", "verdicts")
FILES = ("curves.png", "samples.md", "report.html", SUMMARY_NAME)


@dataclass(frozen=True)
class Preset:
    """Sizes, and the flags of each step by their name on the command line. Batches are over all ranks."""

    sft_batch: int = 32
    reward_batch: int = 32
    ppo_batch: int = 32
    """Prompts per PPO step."""
    sample_prompts: int = 8
    """Held-out prompts answered on the screen at the end."""
    judged_prompts: int = 48
    """Held-out prompts answered for the judge."""
    model: Mapping[str, int] = field(default_factory=dict)
    """Differences from TinyModelSize."""
    sft: Flags = field(default_factory=dict)
    reward: Flags = field(default_factory=dict)
    ppo: Flags = field(default_factory=dict)
    """What both PPO runs share."""
    kl: Flags = field(default_factory=dict)
    wasserstein: Flags = field(default_factory=dict)


FULL = Preset(
    sft_batch=16,
    reward_batch=16,
    # a model made from nothing also has to learn the language, for which the prompts are most of the text
    sft={
        "learning_rate": 3e-3, "num_train_epochs": 6, "warmup_ratio": 0.1, "max_seq_len": 256, "eval_iters": 0,
        "loss_on_prompt": "true",
    },
    reward={
        "learning_rate": 5e-4, "num_train_epochs": 2, "warmup_ratio": 0.1, "max_seq_len": 256, "eval_iters": 0,
    },
    ppo={
        "actor_learning_rate": 3e-4, "critic_learning_rate": 1e-3, "num_train_epochs": 2, "max_steps": 40,
        "max_prompt_seq_len": 192, "max_answer_seq_len": 32, "temperature": 0.8, "sampling_top_k": 50,
        "warmup_ratio": 0.1, "reward_clip": 5.0, "eval_steps": 10,
    },
    kl={"f_div": "rkl", "kl_ctl": 0.05},
    wasserstein={"kl_ctl": 0.05, "cost_dim": 512, "top_k": 128, "max_iter": 10},
)  # fmt: skip

FAST = Preset(
    sft_batch=16,
    reward_batch=16,
    ppo_batch=16,
    sample_prompts=4,
    judged_prompts=8,
    model={"vocab_size": 1024, "hidden_size": 64, "num_layers": 2},
    sft={**FULL.sft, "num_train_epochs": 1, "max_steps": 30, "max_seq_len": 128, "eval_iters": 4},
    reward={**FULL.reward, "num_train_epochs": 1, "max_steps": 30, "max_seq_len": 128, "eval_iters": 4},
    ppo={**FULL.ppo, "max_steps": 10, "max_prompt_seq_len": 96, "max_answer_seq_len": 16, "eval_steps": 5},
    kl=FULL.kl,
    wasserstein={**FULL.wasserstein, "cost_dim": 128, "top_k": 32},
)


def plan(preset: Preset, options: Options, *, num_ranks: int) -> list[Stage]:
    """The four launches, in order; every path in them is absolute."""
    out = options.output
    common: dict[str, str | int | float] = {
        "data_path": DATASET, "data_split": "2,4,4", "data_output_path": str(out / "data_cache"),
        "lr_scheduler_type": "cosine", "dtype": "fp32", "seed": options.seed,
    }  # fmt: skip
    # the models are far too small for sharding to save anything; stage 2 is what the published commands use
    supervised = {**common, "zero_stage": 2}
    ppo = {
        **common, **preset.ppo, "actor_zero_stage": 2, "critic_zero_stage": 2,
        "actor_model_name_or_path": str(out / "sft"), "critic_model_name_or_path": str(out / "reward"),
        **batch_flags(preset.ppo_batch, num_ranks, "generation", "training"), "save_steps": 0,
    }  # fmt: skip
    step3 = TRAINING / "step3_rlhf_finetuning"
    stages = [
        Stage(
            "sft", "Step 1: supervised fine-tuning", TRAINING / "step1_supervised_finetuning", "main.py",
            {**supervised, "model_name_or_path": str(out / "model"), **preset.sft,
             **batch_flags(preset.sft_batch, num_ranks, "train", "eval")},
        ),
        Stage(
            "reward", "Step 2: reward model", TRAINING / "step2_reward_model_finetuning", "main.py",
            {**supervised, "model_name_or_path": str(out / "sft"), **preset.reward,
             **batch_flags(preset.reward_batch, num_ranks, "train", "eval")},
        ),
        Stage("kl", "Step 3: PPO with KL", step3, "main.py", {**ppo, **preset.kl}),
        Stage("wasserstein", "Step 3: PPO with Wasserstein", step3, "main_wpr.py", {**ppo, **preset.wasserstein}),
    ]  # fmt: skip
    return [Stage(s.name, s.title, s.folder, s.program, {**s.flags, "output_dir": str(out / s.name)}) for s in stages]


def report(preset: Preset, options: Options, console: Console, *, seconds: Mapping[str, float]) -> None:
    """Answers, table, picture and summary.json; the latter last, because it marks a finished run."""
    from quickstart import report as shown
    from quickstart.answers import compare_answers, held_out_rows

    out = options.output
    console.print("[bold]Answers to held-out prompts[/bold]")
    samples = compare_answers(
        held_out_rows(DATASET, cache_dir=out / "data_cache", seed=options.seed, count=preset.sample_prompts),
        {"SFT": out / "sft", "KL": out / "kl" / "actor", "Wasserstein": out / "wasserstein" / "actor"},
        out / "reward",
        max_prompt_tokens=int(preset.ppo["max_prompt_seq_len"]),
        max_new_tokens=int(preset.ppo["max_answer_seq_len"]),
        temperature=float(preset.ppo["temperature"]),
        top_k=int(preset.ppo["sampling_top_k"]),
        seed=options.seed,
    )
    (out / "samples.md").write_text(shown.samples_markdown(samples), encoding="utf-8")
    sft, reward, kl, wasserstein = (
        shown.read_metrics(out / name / "metrics.jsonl") for name in ("sft", "reward", "kl", "wasserstein")
    )
    ppo = {"kl": kl, "wasserstein": wasserstein}
    shown.draw_curves(out / "curves.png", sft, reward, ppo)
    summary = shown.summarize(sft, reward, ppo, versions=library_versions(), seconds=seconds)
    console.print(shown.samples_panels(samples))
    console.print(shown.results_table(summary))
    (out / SUMMARY_NAME).write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")


def judge(preset: Preset, options: Options, console: Console) -> None:
    """More answers of every model, verdicts on every pair of models, and the page that shows them."""
    from quickstart.judge import chain

    out = options.output
    console.print("[bold]Answers, judge and report[/bold]")
    commands = chain(
        {"sft": out / "sft", "kl": out / "kl", "wasserstein": out / "wasserstein"},
        out,
        dataset=DATASET,
        samples=preset.judged_prompts,
        sampling={
            "temperature": preset.ppo["temperature"], "top-k": preset.ppo["sampling_top_k"], "seed": options.seed,
            "max-new-tokens": preset.ppo["max_answer_seq_len"], "max-prompt-length": preset.ppo["max_prompt_seq_len"],
        },
    )  # fmt: skip
    for name, words in commands:
        run_command(f"  {name}", words, ROOT, out / "logs" / f"{name}.log", console, num_ranks=1)


def run(options: Options, console: Console) -> None:
    """The whole quickstart."""
    preset = FAST if options.fast else FULL
    started = time.monotonic()
    prepare_output(options.output, (*RESULTS, *FILES))
    console.print("[bold]Dataset, tokenizer and model[/bold]")
    set_up_logging(console)
    make_first_model(
        preset.model, options.output / "model", console, data_path=DATASET, cache_dir=options.output / "data_cache",
        seed=options.seed,
    )  # fmt: skip
    seconds = {"model": time.monotonic() - started}
    num_ranks = count_ranks()
    for stage in plan(preset, options, num_ranks=num_ranks):
        begun = time.monotonic()
        run_stage(stage, options.output / "logs" / f"{stage.name}.log", console, num_ranks=num_ranks)
        seconds[stage.name] = time.monotonic() - begun
    judge(preset, options, console)
    report(preset, options, console, seconds=seconds)
    console.print(f"\nFinished in {(time.monotonic() - started) / 60:.1f} minutes. Results: {options.output}")
    console.print("  " + "  ".join(FILES), style="dim")


def main() -> None:
    """Read the command line and run."""
    options = parse_options()
    run_to_exit(lambda console: run(options, console))


if __name__ == "__main__":
    main()

"""Learns programming from unit tests: SFT, then PPO with the Wasserstein penalty, and pass rates before and after.

Started by quickstart_apps.sh, which sets up the environment; `quickstart_apps.sh --help` lists the options.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console

from quickstart.options import ROOT, SUMMARY_NAME
from quickstart.program_options import AppsOptions, parse_options
from quickstart.stages import TRAINING, Flags, Stage, batch_flags, count_ranks, run_command, run_stage
from quickstart.surroundings import library_versions, make_first_model, prepare_output, run_to_exit, set_up_logging

DATASET = "tiny-apps"
INFERENCE = ROOT / "inference" / "inference_apps.py"
SFT = "sft"
RESULTS = ("model", SFT, "ppo", "logs", "data_cache", "answers")
FILES = ("curves.png", "samples.md", SUMMARY_NAME)


@dataclass(frozen=True)
class Preset:
    """Sizes, and the flags of each step by their name on the command line. Batches are over all ranks."""

    sft_batch: int = 16
    ppo_batch: int = 64
    """Problems per PPO step."""
    held_out: int = 1000
    """Held-out problems answered before and after PPO, at most."""
    answers: int = 1
    """Answers to each of them."""
    shown: int = 6
    """Of these problems, in samples.md."""
    model: Mapping[str, int] = field(default_factory=dict)
    """Differences from TinyModelSize."""
    sft: Flags = field(default_factory=dict)
    ppo: Flags = field(default_factory=dict)


FULL = Preset(
    model={"vocab_size": 1200},
    # a model made from nothing also has to learn the language, for which the prompts are most of the text
    sft={
        "learning_rate": 3e-3, "num_train_epochs": 6, "warmup_ratio": 0.1, "max_seq_len": 256, "eval_iters": 0,
        "loss_on_prompt": "true",
    },
    # The solutions that think aloud do not fit into 48 tokens, the others do. The critic's head is new and says nothing
    # at first, hence whitened advantages: without a baseline, scores below 0 would count against whatever is tried.
    ppo={
        "actor_learning_rate": 1e-4, "critic_learning_rate": 1e-3, "whiten_advantages": "true",
        "max_steps": 24, "max_prompt_seq_len": 192, "max_answer_seq_len": 48,
        "temperature": 1.0, "sampling_top_k": 5, "warmup_ratio": 0.1, "eval_steps": 8, "eval_prompts": 64,
        "max_tests": 4, "kl_ctl": 0.05, "cost_dim": 512, "top_k": 128, "max_iter": 10,
    },
)  # fmt: skip

FAST = Preset(
    ppo_batch=16,
    held_out=16,
    shown=2,
    model={"vocab_size": 1024, "hidden_size": 64, "num_layers": 2},
    sft={**FULL.sft, "num_train_epochs": 1, "max_steps": 40, "eval_iters": 4},
    ppo={
        **FULL.ppo, "max_steps": 6, "max_answer_seq_len": 24, "eval_steps": 3, "eval_prompts": 16, "max_tests": 2,
        "cost_dim": 128, "top_k": 32,
    },
)  # fmt: skip


def plan(preset: Preset, options: AppsOptions, *, num_ranks: int) -> list[Stage]:
    """The launches, in order: SFT on the solutions of half of the training problems, then PPO on all, once per seed."""
    out = options.output
    common: dict[str, str | int | float] = {
        "data_path": DATASET, "data_output_path": str(out / "data_cache"), "lr_scheduler_type": "cosine",
        "dtype": "fp32",
    }  # fmt: skip
    # the models are far too small for sharding to save anything; stage 2 is what the published commands use
    sft = Stage(
        SFT, "Supervised fine-tuning on solutions", TRAINING / "step1_supervised_finetuning", "main.py",
        {**common, "data_split": "5,0,5", "zero_stage": 2, "seed": options.seed, **preset.sft,
         "model_name_or_path": str(out / "model"), "output_dir": str(out / SFT),
         **batch_flags(preset.sft_batch, num_ranks, "train", "eval")},
    )  # fmt: skip
    ppo = [
        Stage(
            f"ppo-{seed}", f"PPO with rewards from unit tests, seed {seed}", TRAINING / "step3_rlhf_finetuning",
            "main_wpr_apps.py",
            {**common, "data_split": "0,0,10", "actor_zero_stage": 2, "critic_zero_stage": 2, "seed": seed,
             **preset.ppo, "allow_unsandboxed": str(options.allow_unsandboxed).lower(), "save_steps": 0,
             "actor_model_name_or_path": str(out / SFT), "output_dir": str(ppo_folder(out, seed)),
             **batch_flags(preset.ppo_batch, num_ranks, "generation", "training")},
        )
        for seed in seeds(options)
    ]  # fmt: skip
    return [sft, *ppo]


def seeds(options: AppsOptions) -> range:
    """The seeds of the PPO runs."""
    return range(options.seed, options.seed + options.seeds)


def ppo_folder(out: Path, seed: int) -> Path:
    """Where a PPO run's models are."""
    return out / "ppo" / f"seed-{seed}"


def inference_words(stage: Stage, preset: Preset, options: AppsOptions) -> list[str]:
    """The command that answers held-out problems with what a stage has trained, and runs the answers' programs."""
    out, ppo = options.output, preset.ppo
    flags = {
        "proj-path": out, "dataset": DATASET, "data-output-path": out / "data_cache",
        "model": stage.flags["output_dir"], "output": answers_file(out, stage.name),
        "num-samples": preset.held_out, "num-return-sequences": preset.answers, "batch-size": 64, "seed": options.seed,
        "temperature": ppo["temperature"], "top-k": ppo["sampling_top_k"], "max-new-tokens": ppo["max_answer_seq_len"],
        "max-prompt-length": ppo["max_prompt_seq_len"],
    }  # fmt: skip
    words = [sys.executable, str(INFERENCE)]
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    words += ["--no-actor-folder"] if stage.name == SFT else []
    return [*words, "--allow-unsandboxed"] if options.allow_unsandboxed else words


def answers_file(out: Path, name: str) -> Path:
    """Result file of a stage's model."""
    return out / "answers" / f"{name}.jsonl"


def report(preset: Preset, options: AppsOptions, console: Console, *, seconds: Mapping[str, float]) -> None:
    """Answers, table, picture and summary.json; the latter last, because it marks a finished run."""
    from quickstart import program_report as shown
    from quickstart.report import read_metrics

    out = options.output
    ppo_names = [f"ppo-{seed}" for seed in seeds(options)]
    rates = {name: shown.read_rates(answers_file(out, name)) for name in (SFT, *ppo_names)}
    summary = shown.summarize(
        rates[SFT], {name: rates[name] for name in ppo_names}, versions=library_versions(), seconds=seconds
    )
    samples = shown.compare_answers(
        {"SFT": answers_file(out, SFT), "PPO": answers_file(out, ppo_names[0])}, count=preset.shown
    )
    (out / "samples.md").write_text(shown.samples_markdown(samples), encoding="utf-8")
    shown.draw_curves(
        out / "curves.png",
        read_metrics(out / SFT / "metrics.jsonl"),
        [read_metrics(ppo_folder(out, seed) / "metrics.jsonl") for seed in seeds(options)],
    )
    console.print(shown.results_table(summary))
    console.print(shown.verdict(summary))
    (out / SUMMARY_NAME).write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")


def run(options: AppsOptions, console: Console) -> None:
    """The whole quickstart."""
    preset = FAST if options.fast else FULL
    out, started = options.output, time.monotonic()
    prepare_output(out, (*RESULTS, *FILES))
    console.print("[bold]Dataset, tokenizer and model[/bold]")
    set_up_logging(console)
    make_first_model(
        preset.model, out / "model", console, data_path=DATASET, cache_dir=out / "data_cache", seed=options.seed
    )
    seconds = {"model": time.monotonic() - started}
    num_ranks = count_ranks()
    for stage in plan(preset, options, num_ranks=num_ranks):
        begun = time.monotonic()
        run_stage(stage, out / "logs" / f"{stage.name}.log", console, num_ranks=num_ranks)
        seconds[stage.name] = time.monotonic() - begun
        name = f"answers-{stage.name}"
        words = inference_words(stage, preset, options)
        run_command("  held-out problems", words, ROOT, out / "logs" / f"{name}.log", console, num_ranks=1)
        seconds[name] = time.monotonic() - begun - seconds[stage.name]
    report(preset, options, console, seconds=seconds)
    console.print(f"\nFinished in {(time.monotonic() - started) / 60:.1f} minutes. Results: {out}")
    console.print("  " + "  ".join(FILES), style="dim")


def main() -> None:
    """Read the command line and run."""
    options = parse_options()
    run_to_exit(lambda console: run(options, console))


if __name__ == "__main__":
    main()

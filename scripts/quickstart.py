"""Runs the three steps with the deepspeed launcher on a small model and reports what was learned.

Started by quickstart.sh, which sets up the environment; `bash scripts/quickstart.sh --help` lists the options.
"""

from __future__ import annotations

import importlib.metadata
import json
import logging
import os
import platform
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.text import Text

from quickstart_options import MARKER_NAME, ROOT, SUMMARY_NAME, Options, parse_options

DATASET = "pydoc-tldr"
TRAINING = ROOT / "applications" / "DeepSpeed-Chat" / "training"
RESULTS = ("model", "sft", "reward", "kl", "wasserstein", "logs", "data_cache", "answers", "verdicts")
FILES = ("curves.png", "samples.md", "report.html", SUMMARY_NAME)
LIBRARIES = ("dschat", "torch", "deepspeed", "transformers", "datasets", "accelerate", "numpy")
# lines of the launcher and the libraries; what a step says of itself begins with a time and a level, or is a table
NOISE = re.compile(
    r"\[(INFO|WARNING)\]|\[launch\.py:|^DeepSpeed deepspeed\.ops|^\[Gloo\]|^\W*$|INFO +gcc |^(Loading|Writing) .*it/s\]"
)
LINE_PREFIX = re.compile(r"^(\d\d:\d\d:\d\d)? +(INFO|WARNING) +|^ +")
LINE_WIDTH = 240
LOG_LINES_SHOWN = 20
SECONDS_BETWEEN_LINES = 10.0
CPU_RANKS = 2
NARROWEST_USEFUL = 120

Flags = Mapping[str, str | int | float]


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


@dataclass(frozen=True)
class Stage:
    """One launch of a training program."""

    name: str
    """Of its log and of its output folder."""
    title: str
    folder: Path
    """The step's own folder, in which the program is started."""
    program: str
    flags: Flags


class StageFailed(Exception):
    """A training program ended with an error, which has been shown already."""


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
        **_batch_flags(preset.ppo_batch, num_ranks, "generation", "training"), "save_steps": 0,
    }  # fmt: skip
    step3 = TRAINING / "step3_rlhf_finetuning"
    stages = [
        Stage(
            "sft", "Step 1: supervised fine-tuning", TRAINING / "step1_supervised_finetuning", "main.py",
            {**supervised, "model_name_or_path": str(out / "model"), **preset.sft,
             **_batch_flags(preset.sft_batch, num_ranks, "train", "eval")},
        ),
        Stage(
            "reward", "Step 2: reward model", TRAINING / "step2_reward_model_finetuning", "main.py",
            {**supervised, "model_name_or_path": str(out / "sft"), **preset.reward,
             **_batch_flags(preset.reward_batch, num_ranks, "train", "eval")},
        ),
        Stage("kl", "Step 3: PPO with KL", step3, "main.py", {**ppo, **preset.kl}),
        Stage("wasserstein", "Step 3: PPO with Wasserstein", step3, "main_wpr.py", {**ppo, **preset.wasserstein}),
    ]  # fmt: skip
    return [Stage(s.name, s.title, s.folder, s.program, {**s.flags, "output_dir": str(out / s.name)}) for s in stages]


def _batch_flags(batch: int, num_ranks: int, *purposes: str) -> dict[str, int]:
    return {f"per_device_{purpose}_batch_size": batch // num_ranks for purpose in purposes}


def count_ranks() -> int:
    """GPUs to use, a power of two that divides every batch size, or two processes where there is no GPU."""
    import torch

    found = torch.cuda.device_count()
    return max(n for n in (1, 2, 4, 8) if n <= found) if found else CPU_RANKS


def launch_words(stage: Stage, *, num_ranks: int) -> list[str]:
    """The command of a stage, as a list of words."""
    launcher = str(Path(sys.executable).with_name("deepspeed"))
    words = [launcher, "--num_gpus", str(num_ranks), "--master_port", str(_free_port()), stage.program, "--deepspeed"]
    for name, value in stage.flags.items():
        words += [f"--{name}", str(value)]
    return words


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def child_environment(*, num_ranks: int) -> dict[str, str]:
    """What the launched programs see: this environment's tools first, no network, and no more threads than cores."""
    cores = len(os.sched_getaffinity(0))
    return {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(max(1, cores // num_ranks))),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "PYTHONUNBUFFERED": "1",
        "COLUMNS": str(LINE_WIDTH),
    }


def run_stage(stage: Stage, log: Path, console: Console, *, num_ranks: int) -> None:
    """Run a stage with its output in a log file and its newest line on the screen.

    Raises:
        StageFailed: it ended with an error; its last lines, its command and its log's path have been shown.
    """
    words = launch_words(stage, num_ranks=num_ranks)
    run_command(stage.title, words, stage.folder, log, console, num_ranks=num_ranks)


def run_command(title: str, words: list[str], folder: Path, log: Path, console: Console, *, num_ranks: int) -> None:
    """Run a program in a folder, likewise, with the threads of one of `num_ranks` processes."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w", encoding="utf-8") as file, _live_line(console, title) as show:
        file.write(f"# cd {shlex.quote(str(folder))} && {shlex.join(words)}\n")
        file.flush()
        with _started(words, folder, child_environment(num_ranks=num_ranks)) as process:
            for line in process.stdout or ():
                file.write(line)
                file.flush()
                if not NOISE.search(line):
                    show(LINE_PREFIX.sub("", line.rstrip()))
        status = process.returncode
    if status != 0:
        _show_failure(title, folder, words, log, status, console)
        raise StageFailed(title)


@contextmanager
def _started(words: list[str], folder: Path, environment: Mapping[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive this block, whatever ends it."""
    process = subprocess.Popen(
        words, cwd=folder, env=dict(environment), text=True, errors="replace",
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield process
        process.wait()
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def _live_line(console: Console, title: str) -> Iterator[Callable[[str], None]]:
    """Shows a title with the newest line beside it; where the output is no terminal, a line every few seconds."""
    console.print(f"[bold]{title}[/bold]")
    started = shown_at = time.monotonic()
    newest = ""

    def cut(line: str) -> Text:
        # room for the spinner; a wrapped line would flicker
        text = Text(line)
        text.truncate(max(console.width - 4, 1), overflow="ellipsis")
        return text

    with console.status("starting") as status:

        def show(line: str) -> None:
            nonlocal newest, shown_at
            newest = line
            status.update(cut(line))
            if not console.is_terminal and time.monotonic() - shown_at >= SECONDS_BETWEEN_LINES:
                shown_at = time.monotonic()
                console.print(cut("  " + line), style="dim")

        yield show
    console.print(cut(f"  {time.monotonic() - started:.0f} s  {newest}"), style="dim")


def _show_failure(title: str, folder: Path, words: list[str], log: Path, status: int, console: Console) -> None:
    with log.open(encoding="utf-8", errors="replace") as file:
        # what the launcher says last hides what the program said last
        last = deque((line for line in file if not NOISE.search(line)), maxlen=LOG_LINES_SHOWN)
    console.print(Text("".join(last).rstrip(), style="dim"))
    console.print(
        Text(f"error: {title} ended with status {status}; its last lines are above, the full log is {log}"),
        style="bold red", soft_wrap=True,
    )  # fmt: skip
    console.print(Text(f"command: cd {shlex.quote(str(folder))} && {shlex.join(words)}"), soft_wrap=True)


def prepare_output(folder: Path) -> None:
    """Make the folder ours and remove what an earlier quickstart left in it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARKER_NAME).touch()
    for name in RESULTS:
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def library_versions() -> dict[str, str]:
    """Python's and the libraries' versions."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in LIBRARIES}}


def make_model(preset: Preset, options: Options, console: Console) -> None:
    """Train the tokenizer and write the unlearned model."""
    # slow to import: the screen shows what is going on first
    from make_tiny_model import TinyModelSize, make_tiny_model

    size = TinyModelSize(**preset.model)
    out = options.output
    count = make_tiny_model(out / "model", size, data_path=DATASET, cache_dir=out / "data_cache", seed=options.seed)
    console.print(f"  a Llama of {count:,} parameters, unlearned, and its tokenizer", style="dim")


def report(preset: Preset, options: Options, console: Console, *, seconds: Mapping[str, float]) -> None:
    """Answers, table, picture and summary.json; the latter last, because it marks a finished run."""
    import quickstart_report
    from quickstart_answers import compare_answers, held_out_rows

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
    (out / "samples.md").write_text(quickstart_report.samples_markdown(samples), encoding="utf-8")
    sft, reward, kl, wasserstein = (
        quickstart_report.read_metrics(out / name / "metrics.jsonl") for name in ("sft", "reward", "kl", "wasserstein")
    )
    ppo = {"kl": kl, "wasserstein": wasserstein}
    quickstart_report.draw_curves(out / "curves.png", sft, reward, ppo)
    summary = quickstart_report.summarize(sft, reward, ppo, versions=library_versions(), seconds=seconds)
    console.print(quickstart_report.samples_panels(samples))
    console.print(quickstart_report.results_table(summary))
    (out / SUMMARY_NAME).write_text(json.dumps(summary.to_json(), indent=2) + "\n", encoding="utf-8")


def judge(preset: Preset, options: Options, console: Console) -> None:
    """More answers of every model, verdicts on every pair of models, and the page that shows them."""
    from quickstart_judge import chain

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


def set_up_logging(console: Console) -> None:
    """Our own messages on the screen; the libraries' own bars and notes are for other callers."""
    handler = RichHandler(
        console=console, show_time=False, show_level=False, show_path=False, highlighter=NullHighlighter()
    )
    logging.basicConfig(level=logging.WARNING, format="  %(message)s", handlers=[handler])
    logging.getLogger("dschat").setLevel(logging.INFO)
    # it sets its own level on import, which a filter outlives
    logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)
    # slow to import
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()


def run(options: Options, console: Console) -> None:
    """The whole quickstart."""
    preset = FAST if options.fast else FULL
    started = time.monotonic()
    prepare_output(options.output)
    console.print("[bold]Dataset, tokenizer and model[/bold]")
    set_up_logging(console)
    make_model(preset, options, console)
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


def _stop(signum: int, _frame: object) -> NoReturn:
    sys.exit(128 + signum)


def main() -> None:
    """Read the command line, run, and turn failures into an exit status."""
    options = parse_options()
    signal.signal(signal.SIGTERM, _stop)
    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(width=max(console.width, NARROWEST_USEFUL), highlight=False)
    # imported late, after the options were checked
    from dschat.errors import run_guarded

    try:
        run_guarded(lambda: run(options, console))
    except StageFailed:
        sys.exit(1)
    except KeyboardInterrupt:
        console.print("stopped", style="bold red")
        sys.exit(130)


if __name__ == "__main__":
    main()

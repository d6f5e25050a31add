"""How long a whole PPO step takes without a regularizer, with KL and with Wasserstein, alternately in one process.

    python scripts/bench/ppo_step.py --models runs/quickstart --output ppo_step.json
    python scripts/bench/ppo_step.py --config gemma-2b/config.json --dtype bf16 --prompt_tokens 512 --answer_tokens 256

Every round runs each variant on the same prompts with the same random numbers from the same weights (the learning rate
is too small to change them), so that all do the same work apart from the penalty. Reported are medians, and the
overhead over KL as the median of the differences within rounds. Without --models the weights are random: those of the
quickstart's model, or of --config.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.data.batches import PromptBatch
from dschat.errors import UserError, run_guarded
from dschat.tools.tiny_model import TinyModelSize

if TYPE_CHECKING:
    from dschat.rlhf.ppo_trainer import DeepSpeedPPOTrainer

CAPPED = {"transport": "capped", "epsilon_unit": "nearest", "epsilon": 0.2, "max_iter": 50, "tol": 1e-3}
UNCHANGING_LEARNING_RATE = 1e-12
WEIGHT_NOISE = 0.1  # in standard deviations of the weights of a matrix
SECTIONS = {"none": DivergenceConfig, "kl": DivergenceConfig}


@dataclass(frozen=True)
class Timing:
    """One variant over all rounds, medians in seconds."""

    step_seconds: float
    generation_seconds: float
    scoring_seconds: float
    """Both models, the penalty, the critic and the reward model."""
    training_seconds: float
    overhead_seconds: float
    """Median over rounds of the step's time minus that of KL in the same round."""
    overhead_percent: float
    """The same in percent of the median KL step."""
    scoring_overhead_percent: float
    """Likewise from the differences in scoring alone, where the penalty is: less noise on a busy machine. Not for a
    GPU, whose queue runs on into the next part."""


@dataclass(frozen=True)
class Bench:
    """What is measured."""

    trainers: dict[str, DeepSpeedPPOTrainer]
    """One for each variant, all on the same models."""
    build_seconds: dict[str, float]
    """What building each regularizer took, the geometry included; the trainer around it takes next to nothing."""
    device: torch.device
    vocab_size: int
    """The highest token id plus one."""


def variants(top_ks: Sequence[int]) -> dict[str, dict[str, str | int | float]]:
    """Flags of the regularizers by name."""
    found: dict[str, dict[str, str | int | float]] = {"none": {"f_div": "none"}, "kl": {"f_div": "rkl"}}
    for top_k in top_ks:
        found[f"truncated, k2 = {top_k}"] = {"top_k": top_k}
        found[f"capped, debiased, k2 = {top_k}"] = {"top_k": top_k, **CAPPED, "debias": "true"}
    return found


def write_random_models(folder: Path, config_file: Path | None) -> None:
    """Write sft/ and reward/ with random weights and a tokenizer of as many made-up words as the model has rows."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        AutoConfig,
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        LlamaConfig,
        PreTrainedTokenizerFast,
    )

    size = TinyModelSize()
    config = AutoConfig.from_pretrained(config_file) if config_file else LlamaConfig(
        vocab_size=size.vocab_size, hidden_size=size.hidden_size, intermediate_size=8 * round(size.hidden_size / 3),
        num_hidden_layers=size.num_layers, num_attention_heads=size.num_heads, tie_word_embeddings=True,
        max_position_embeddings=size.max_length,
    )  # fmt: skip
    config.pad_token_id, config.eos_token_id, config.num_labels = 0, 1, 1
    words = {"<pad>": 0, "<eos>": 1, **{f"w{index}": index for index in range(2, config.vocab_size)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>")
    for name, kind in (("sft", AutoModelForCausalLM), ("reward", AutoModelForSequenceClassification)):
        torch.manual_seed(0)
        model = kind.from_config(config, dtype=config.dtype or torch.float32)
        model.save_pretrained(folder / name)
        wrapped.save_pretrained(folder / name)
        del model


def step_config(options: argparse.Namespace, models: Path, name: str, flags: Mapping[str, object]) -> PPOConfig:
    """Settings of step 3 for one variant."""
    shared = {
        "data_path": "pydoc-tldr", "actor_model_name_or_path": models / "sft",
        "critic_model_name_or_path": models / "reward", "output_dir": models / "unused", "dtype": options.dtype,
        "per_device_generation_batch_size": options.batch, "per_device_training_batch_size": options.micro_batch,
        "gradient_accumulation_steps": options.batch // options.micro_batch,
        "max_prompt_seq_len": options.prompt_tokens, "max_answer_seq_len": options.answer_tokens,
        "actor_learning_rate": UNCHANGING_LEARNING_RATE, "critic_learning_rate": UNCHANGING_LEARNING_RATE,
    }  # fmt: skip
    if options.gradient_checkpointing:
        shared |= {"actor_gradient_checkpointing": "true", "critic_gradient_checkpointing": "true"}
    words = [str(word) for flag, value in {**shared, **flags}.items() for word in (f"--{flag}", value)]
    if name not in SECTIONS:
        words += ["--cost_dim", str(options.cost_dim)]
    return parse_ppo_config(words, regularizer=SECTIONS.get(name, WassersteinConfig))


def build(configs: Mapping[str, PPOConfig], models: Path, *, never_end: bool = False) -> Bench:
    """Load the models once and put a trainer for each regularizer on them.

    Args:
        configs: settings by name; models and batches are those of the first.
        models: folder with sft/ and reward/.
        never_end: no token ends an answer: all have --max_answer_seq_len tokens.
    """
    from dschat.generation import EndTokens, HuggingFaceSettings, build_generator
    from dschat.models.checked import check_model
    from dschat.rlhf.rlhf_engine import Checkpoints, DeepSpeedRLHFEngine
    from dschat.rlhf.run_ppo import build_ppo
    from dschat.runtime.distributed import initialize
    from dschat.runtime.logging import set_up_logging

    set_up_logging()
    device = initialize(-1)
    first = next(iter(configs.values()))
    checkpoints = Checkpoints(*(check_model("models", str(models / name)) for name in ("sft", "reward")))
    engine = DeepSpeedRLHFEngine(first, checkpoints, total_updates=10**6, device=device)
    ends = EndTokens.of(checkpoints.actor)
    generator = build_generator(engine.actor, replace(ends, stop=()) if never_end else ends, HuggingFaceSettings())
    trainers, seconds = {}, {}
    for name, config in configs.items():
        started = time.perf_counter()
        trainers[name] = build_ppo(config, engine, generator=generator).trainer
        synchronize(device)
        seconds[name] = time.perf_counter() - started
    perturb(engine.reference)
    return Bench(trainers, seconds, device, engine.vocabulary.size)


@torch.no_grad()
def perturb(reference: nn.Module) -> None:
    """Move a model away from its twin, as training would: equal policies are an easy case for some solvers."""
    torch.manual_seed(0)
    for weight in reference.parameters():
        if weight.dim() > 1:
            weight.add_(torch.randn_like(weight), alpha=WEIGHT_NOISE * float(weight.float().std()))


def random_prompts(options: argparse.Namespace, vocab_size: int, *, seed: int) -> PromptBatch:
    """A batch [B, P] of random tokens, left-padded where --shortest_prompt asks for unequal lengths."""
    generator = torch.Generator().manual_seed(seed)
    width = options.prompt_tokens
    ids = torch.randint(3, vocab_size, (options.batch, width), generator=generator)
    lengths = torch.randint(options.shortest_prompt or width, width + 1, (options.batch, 1), generator=generator)
    mask = (torch.arange(width) >= width - lengths).long()
    record = {"prompt": "", "chosen": ""}
    return PromptBatch(ids * mask, mask, (record,) * options.batch)


def synchronize(device: torch.device) -> None:
    """Wait for the device's queue; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_step(
    trainer: DeepSpeedPPOTrainer, prompts: PromptBatch, device: torch.device, *, seed: int
) -> dict[str, float]:
    """Seconds of one PPO step and of its parts."""
    torch.manual_seed(seed)
    synchronize(device)
    started = time.perf_counter()
    made = trainer.generate_experience(prompts, step=seed)
    training = trainer.train_rlhf([made.experience], step=seed)
    synchronize(device)
    seconds = time.perf_counter() - started
    metrics = (made.sums + training.sums).means(device)
    parts = ("generation_seconds", "scoring_seconds", "training_seconds", "response_length", "log_ratio")
    return {"step_seconds": seconds, **{part: metrics[part] for part in parts}}


def summarize(rounds: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, Timing]:
    """Medians and overheads of each variant.

    Args:
        rounds: for each round the times of every variant, "kl" among them.
    """
    baseline = statistics.median(one["kl"]["step_seconds"] for one in rounds)
    found = {}
    for name in rounds[0]:
        parts = {
            part: statistics.median(one[name][part] for one in rounds)
            for part in ("step_seconds", "generation_seconds", "scoring_seconds", "training_seconds")
        }
        extra, extra_scoring = (
            statistics.median(one[name][part] - one["kl"][part] for one in rounds)
            for part in ("step_seconds", "scoring_seconds")
        )
        found[name] = Timing(
            **parts,
            overhead_seconds=extra,
            overhead_percent=100 * extra / baseline,
            scoring_overhead_percent=100 * extra_scoring / baseline,
        )
    return found


def measure(options: argparse.Namespace, console: Console) -> None:
    """Build, warm up, alternate, report."""
    for flag in ("rounds", "batch", "micro_batch", "prompt_tokens", "answer_tokens", "cost_dim"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    if options.shortest_prompt is not None and not 1 <= options.shortest_prompt <= options.prompt_tokens:
        raise UserError(f"--shortest_prompt must be between 1 and --prompt_tokens, got {options.shortest_prompt}")
    if options.batch % options.micro_batch:
        raise UserError(
            f"--micro_batch {options.micro_batch} does not divide --batch {options.batch}; choose a divisor"
        )
    with tempfile.TemporaryDirectory() as scratch:
        models = (options.models or Path(scratch)).expanduser().absolute()
        if options.models is None:
            write_random_models(models, options.config)
        elif not (models / "sft" / "config.json").is_file():
            raise UserError(
                f"--models {models}: there is no sft/ in it; pass a folder that scripts/quickstart.sh wrote"
            )
        flags = variants(options.top_k)
        configs = {name: step_config(options, models, name, chosen) for name, chosen in flags.items()}
        bench = build(configs, models)
    order, rounds = list(bench.trainers), []
    for number in range(options.rounds + 1):
        prompts = random_prompts(options, bench.vocab_size, seed=number)
        order = [*order[1:], order[0]]  # no variant always comes first
        times = {name: time_step(bench.trainers[name], prompts, bench.device, seed=number) for name in order}
        if number:  # the first round warms up
            rounds.append({name: times[name] for name in configs})
    report(options, rounds, bench, console)


def report(
    options: argparse.Namespace, rounds: Sequence[Mapping[str, Mapping[str, float]]], bench: Bench, console: Console
) -> None:
    """Show the table and write the JSON file."""
    timings, device = summarize(rounds), bench.device
    tokens = statistics.median(one["kl"]["response_length"] for one in rounds)
    table = Table(
        title=f"One PPO step: {options.batch} prompts of {options.prompt_tokens} tokens, answers of {tokens:.0f}; "
        f"medians of {len(rounds)} rounds in ms",
        title_justify="left",
    )
    for name in (
        "regularizer",
        "step",
        "generation",
        "scoring",
        "training",
        "over KL",
        "in %",
        "scoring, %",
        "built in",
    ):
        table.add_column(name, justify="left" if name == "regularizer" else "right")
    for name, timing in timings.items():
        parts = (timing.step_seconds, timing.generation_seconds, timing.scoring_seconds, timing.training_seconds)
        table.add_row(
            name, *(f"{1000 * part:.0f}" for part in parts), f"{1000 * timing.overhead_seconds:+.1f}",
            f"{timing.overhead_percent:+.1f}", f"{timing.scoring_overhead_percent:+.1f}",
            f"{1000 * bench.build_seconds[name]:.0f}",
        )  # fmt: skip
    console.print(table)
    if options.output:
        machine = {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
            "threads": torch.get_num_threads(), "python": platform.python_version(), "torch": torch.__version__,
        }  # fmt: skip
        document = {
            "settings": {name: str(value) for name, value in vars(options).items()}, "machine": machine,
            "variants": {name: asdict(timing) for name, timing in timings.items()},
            "build_seconds": bench.build_seconds,
            "rounds": list(rounds),
        }  # fmt: skip
        options.output.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Read the command line and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--models", type=Path, help="folder with sft/ and reward/, as the quickstart writes it")
    source.add_argument("--config", type=Path, help="config.json of a model to be given random weights")
    parser.add_argument("--dtype", choices=("fp32", "bf16", "fp16"), default="fp32", help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=32, help="prompts per step (default: %(default)s)")
    parser.add_argument("--micro_batch", type=int, default=16, help="rows per training pass (default: %(default)s)")
    parser.add_argument("--prompt_tokens", type=int, default=192, help="default: %(default)s")
    parser.add_argument("--shortest_prompt", type=int, help="prompts of this to --prompt_tokens tokens; default: equal")
    parser.add_argument("--answer_tokens", type=int, default=32, help="default: %(default)s")
    parser.add_argument("--cost_dim", type=int, default=512, help="k1 (default: %(default)s)")
    parser.add_argument("--top_k", type=int, nargs="+", default=[32, 128], help="k2 (default: 32 128)")
    parser.add_argument("--rounds", type=int, default=15, help="after one to warm up (default: %(default)s)")
    parser.add_argument("--gradient_checkpointing", action="store_true", help="of actor and critic")
    parser.add_argument("--output", metavar="FILE", type=Path, help="JSON file to write")
    options = parser.parse_args()
    console = Console()
    console = console if console.is_terminal else Console(width=120)
    run_guarded(lambda: measure(options, console))


if __name__ == "__main__":
    main()

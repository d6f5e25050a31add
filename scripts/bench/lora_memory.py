"""What an actor with its reference keeps in memory: all weights trained, LoRA beside other weights, LoRA alone.

    python scripts/bench/lora_memory.py
    python scripts/bench/lora_memory.py --config gemma-2b/config.json --rank 16 --output lora_memory.json

Each variant trains a few steps in a process of its own, float32 at ZeRO stage 0, so that weights, gradients and
optimizer states are all tensors that can be counted. The peak is the process's resident memory (on a GPU: allocated
memory) beyond what it held before it built the model. Weights are random: those of --config, or of a small Llama.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from dschat.config.lora import AdapterSettings
from dschat.runtime.memory import peak_since, start_peak

MIB = 2**20
VARIANTS = ("full", "lora beside all", "lora alone")
WIDTH, LAYERS, VOCABULARY = 768, 12, 8192


@dataclass(frozen=True)
class Memory:
    """Bytes that one variant keeps, and the peak of its training steps."""

    weights: int
    """Of the actor, its adapter included."""
    trained: int
    """Number of weights that are trained."""
    gradients: int
    optimizer: int
    reference: int
    """Weights of a frozen copy; none where the adapter is switched off instead."""
    peak: int


def measure(options: argparse.Namespace) -> Memory:
    """Train one variant in this process."""
    from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig

    from dschat.config.training import ScheduleConfig
    from dschat.models.lora import WithoutAdapter, add_adapter
    from dschat.runtime.deepspeed_config import Optimization, Placement, training_engine, training_settings
    from dschat.runtime.distributed import initialize

    device = initialize(-1)
    config = AutoConfig.from_pretrained(options.config) if options.config else LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=WIDTH, intermediate_size=8 * WIDTH // 3, num_hidden_layers=LAYERS,
        num_attention_heads=8, tie_word_embeddings=True,
    )  # fmt: skip
    before = start_peak(device)
    adapter = adapter_of(options)

    def build() -> Any:
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)

    model = build()
    if adapter is not None:
        add_adapter(model, adapter, seed=0)
    schedule = ScheduleConfig(lr_scheduler_type="constant")
    optimization = Optimization(1e-4, 0.0, options.batch, schedule, options.steps, lora_learning_rate=1e-3)
    settings = training_settings(Placement(0, "fp32", offload=False), optimization)
    engine = training_engine(model, settings, optimization)
    alone = adapter is not None and adapter.alone
    reference = WithoutAdapter(engine) if alone else build().to(device).eval().requires_grad_(False)
    gradients = 0
    for step in range(options.steps):
        generator = torch.Generator().manual_seed(step)
        ids = torch.randint(config.vocab_size, (options.batch, options.tokens), generator=generator).to(device)
        engine.eval()
        with torch.no_grad():
            reference(input_ids=ids, use_cache=False)
        engine.train()
        engine.backward(engine(input_ids=ids, labels=ids, use_cache=False).loss)
        gradients = sum(p.grad.nbytes for p in engine.module.parameters() if p.grad is not None)
        engine.step()
    parameters = list(engine.module.parameters())
    states = [value for state in engine.optimizer.state.values() for value in state.values()]
    return Memory(
        weights=sum(p.nbytes for p in parameters),
        trained=sum(p.numel() for p in parameters if p.requires_grad),
        gradients=gradients,
        optimizer=sum(value.nbytes for value in states if isinstance(value, torch.Tensor)),
        reference=0 if alone else sum(p.nbytes for p in reference.parameters()),
        peak=peak_since(before, device),
    )


def adapter_of(options: argparse.Namespace) -> AdapterSettings | None:
    """The adapter of a variant."""
    if options.variant == "full":
        return None
    return AdapterSettings(
        rank=options.rank, alpha=float(options.rank), module_names=(), learning_rate=1e-3,
        alone=options.variant == "lora alone", quantized=False, role="",
    )  # fmt: skip


def measure_apart(variant: str, words: Sequence[str]) -> Memory:
    """Train one variant in a process of its own."""
    command = [sys.executable, __file__, *words, "--variant", variant]
    finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise RuntimeError(f"{variant} failed:\n{finished.stderr[-2000:]}")
    return Memory(**json.loads(finished.stdout.splitlines()[-1]))


def show(found: dict[str, Memory], console: Console) -> None:
    """One row per variant, in MiB."""
    table = Table(title="actor and reference, MiB")
    columns = ("weights", "gradients", "optimizer", "reference", "peak")
    for column in ("variant", "trained weights", *columns):
        table.add_column(column, justify="left" if column == "variant" else "right", no_wrap=column == "variant")
    for name, memory in found.items():
        sizes = (f"{getattr(memory, column) / MIB:,.0f}" for column in columns)
        table.add_row(name, f"{memory.trained:,}", *sizes)
    console.print(table)


def main(words: Sequence[str]) -> None:
    """Read the command line, measure every variant, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", help="folder or file of a model's config; default: a Llama of 91 million weights")
    parser.add_argument("--rank", type=int, default=16, help="of the adapter")
    parser.add_argument("--batch", type=int, default=4, help="rows per step")
    parser.add_argument("--tokens", type=int, default=64, help="tokens per row")
    parser.add_argument("--steps", type=int, default=3, help="optimizer steps")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    parser.add_argument("--variant", choices=VARIANTS, help="measure this one alone, in this process")
    options = parser.parse_args(words)
    if options.variant:
        sys.stdout.write("\n" + json.dumps(asdict(measure(options))) + "\n")
        return
    found = {variant: measure_apart(variant, words) for variant in VARIANTS}
    console = Console()
    show(found, console if console.is_terminal else Console(width=120))
    if options.output:
        options.output.write_text(json.dumps({name: asdict(memory) for name, memory in found.items()}, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])

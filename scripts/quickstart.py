"""Runs the three steps with the deepspeed launcher on a small model and reports what was learned.

Started by quickstart.sh, which sets up the environment; `bash scripts/quickstart.sh --help` lists the options.
"""

from __future__ import annotations

import importlib.metadata
import json
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from quickstart_options import MARKER_NAME, ROOT, SUMMARY_NAME, Options, parse_options
from rich.console import Console
from rich.text import Text

DATASET = "pydoc-tldr"
TRAINING = ROOT / "applications" / "DeepSpeed-Chat" / "training"
LAUNCHER_NOISE = re.compile(r"^\s*$|\[(INFO|WARNING)\]|^DeepSpeed deepspeed\.ops|Gloo")
LOG_LINES_SHOWN = 20
SECONDS_BETWEEN_LINES = 10
LIBRARIES = ("torch", "deepspeed", "transformers", "datasets", "accelerate", "numpy", "dschat")


@dataclass(frozen=True)
class Preset:
    """How long and how large everything is; batch sizes are over all ranks."""

    vocab_size: int = 2048
    hidden_size: int = 128
    num_layers: int = 4
    num_heads: int = 4
    max_seq_len: int = 256
    """Tokens of prompt and answer in steps 1 and 2."""
    max_prompt_len: int = 192
    max_answer_len: int = 32
    temperature: float = 0.8
    top_k: int = 50
    """Sampling in step 3 and of the answers at the end."""
    sft: dict[str, object] = field(
        default_factory=lambda: {
            "batch": 32, "learning_rate": 3e-3, "num_train_epochs": 3, "warmup_ratio": 0.1, "max_steps": 0,
        }
    )  # fmt: skip
    reward: dict[str, object] = field(
        default_factory=lambda: {
            "batch": 32, "learning_rate": 1e-3, "num_train_epochs": 2, "warmup_ratio": 0.1, "max_steps": 0,
        }
    )  # fmt: skip
    ppo: dict[str, object] = field(
        default_factory=lambda: {
            "batch": 32, "actor_learning_rate": 2e-4, "critic_learning_rate": 1e-3, "num_train_epochs": 2,
            "max_steps": 40, "eval_steps": 10, "kl_ctl": 0.05,
        }
    )  # fmt: skip

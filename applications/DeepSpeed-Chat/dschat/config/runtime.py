"""Settings of how a run runs: devices, folders, saved states, and what happens when something goes wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from dschat.config.deepspeed_file import read_deepspeed_file
from dschat.config.flag import Section, flag
from dschat.errors import UserError

ZeroStage = Literal[0, 1, 2, 3]
OnFullDisk = Literal["stop", "continue"]

LARGEST_SEED = 2**32 - 1
"""Of NumPy's generators, which split and order the data."""


@dataclass(frozen=True)
class RuntimeConfig(Section):
    """Devices, precision and safety."""

    group: ClassVar[str] = "runtime"

    dtype: Literal["fp16", "bf16", "fp32"] = flag(
        "fp16", help="Precision of weights and activations; losses are always float32. fp16 falls back to bf16."
    )
    offload: bool = flag(False, help="Keep optimizer states (ZeRO 1-3) and weights (ZeRO 3) in host memory.")
    seed: int = flag(
        1234,
        at_least=0,
        at_most=LARGEST_SEED,
        help="Seed of data order, splits, new weights and (plus the rank) sampling.",
    )
    local_rank: int = flag(
        -1, at_least=-1, may_change=True, help="Number of the process on its machine; set by the launcher."
    )
    deepspeed_config: str | None = flag(
        None,
        may_change=True,  # its content may not
        help='JSON file of DeepSpeed settings that no flag sets; "auto" stands for what the flags say.',
    )
    dist_timeout: float = flag(
        1800.0, above=0, may_change=True, help="Seconds that a rank waits for the others before the run is given up."
    )
    trust_remote_code: bool = flag(False, may_change=True, help="Run Python code that a model folder brings along.")
    dry_run: bool = flag(
        False,
        may_change=True,
        help="Check everything, make and save one step in a temporary folder (step 3: answers of 4 tokens), print the "
        "batch sizes and the memory, and leave --output_dir as it was.",
    )

    def check(self) -> None:
        """Raise UserError for a file of DeepSpeed settings that is not there or no JSON."""
        if self.deepspeed_config is not None:
            read_deepspeed_file(self.deepspeed_config)


@dataclass(frozen=True)
class OutputConfig(Section):
    """What a run leaves behind."""

    group: ClassVar[str] = "output"

    output_dir: str | None = flag(None, may_change=True, help="Folder of models, metrics.jsonl and caches (required).")
    overwrite_output_dir: bool = flag(False, may_change=True, help="Start anew in a folder that already holds a run.")
    enable_tensorboard: bool = flag(False, may_change=True, help="Also write the metrics for TensorBoard.")
    tensorboard_path: str | None = flag(
        None,
        needs="enable_tensorboard",
        may_change=True,
        help="Folder of the TensorBoard files; default: tensorboard in --output_dir.",
    )

    def check(self) -> None:
        """Raise UserError where there is no folder to write to."""
        if self.output_dir is None:
            raise UserError("--output_dir is missing; name the folder that the run writes to")


@dataclass(frozen=True)
class SavingConfig(Section):
    """When a run saves what it needs to go on, and from where it goes on."""

    group: ClassVar[str] = "saving and resuming"

    save_steps: int = flag(
        100,
        at_least=0,
        may_change=True,
        help="Steps between saved states (step 3: and models); the end is always saved. 0: the end alone.",
    )
    save_total_limit: int = flag(
        2, at_least=0, may_change=True, help="States that are kept; older ones are deleted. 0: all."
    )
    save_only_model: bool = flag(False, may_change=True, help="Save models but no states; the run cannot be resumed.")
    resume: str = flag(
        "never",
        may_change=True,
        help="auto: go on from the newest whole state in --output_dir, or start if there is none. A folder: from that "
        "state. never: refuse a folder that holds a run.",
    )
    resume_override: bool = flag(
        False, may_change=True, help="Go on although settings differ from those of the saved state."
    )
    on_full_disk: OnFullDisk = flag(
        "stop",
        may_change=True,
        help="What to do when a state does not fit; continue: train on and try again at the next save.",
    )

    def check(self) -> None:
        """Raise UserError for a state that cannot be there."""
        if self.resume == "":
            raise UserError("--resume is empty; pass auto, never, or the folder of a state")
        if self.resume not in ("never", "auto") and not Path(self.resume).expanduser().is_dir():
            raise UserError(f"--resume {self.resume}: there is no such folder ({Path(self.resume).absolute()})")


@dataclass(frozen=True)
class GuardConfig(Section):
    """What to do about numbers that are not finite."""

    group: ClassVar[str] = "guards"

    on_nan: Literal["stop", "skip"] = flag(
        "stop",
        may_change=True,
        help="What to do about NaN or infinite losses, gradients, logits or rewards. skip: leave the step out.",
    )
    max_skipped_steps: int = flag(
        5, at_least=1, may_change=True, help="Steps left out in a row after which the run is given up."
    )


def check_start(output: OutputConfig, saving: SavingConfig) -> None:
    """Raise UserError where a run is to go on and to start anew."""
    if saving.resume != "never" and output.overwrite_output_dir:
        raise UserError("--resume and --overwrite_output_dir contradict each other; pass one of them")

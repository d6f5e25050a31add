"""Settings of training: the one model of steps 1 and 2, and the schedule that all steps have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dschat.config.flag import Section, flag
from dschat.config.runtime import ZeroStage

SchedulerName = Literal["linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup"]


@dataclass(frozen=True)
class SupervisedConfig(Section):
    """The one model that step 1 or step 2 trains, and its batches."""

    group: ClassVar[str] = "model and optimization"

    model_name_or_path: str = flag(help="Step 1: a causal language model. Step 2: the folder that step 1 wrote.")
    per_device_train_batch_size: int = flag(16, at_least=1, help="Rows per device and forward pass.")
    per_device_eval_batch_size: int = flag(
        16, at_least=1, may_change=True, help="Rows per device and forward pass in evaluation."
    )
    max_seq_len: int = flag(512, at_least=1, help="Tokens of prompt and answer; longer prompts are cut at the front.")
    learning_rate: float = flag(5e-5, above=0, help="Peak learning rate.")
    weight_decay: float = flag(0.0, at_least=0, help="Decoupled weight decay of all weights but biases and norms.")
    gradient_checkpointing: bool = flag(
        False, help="Compute activations anew in the backward pass: less memory, more time."
    )
    dropout: float | None = flag(None, at_least=0, below=1, help="Overrides every dropout rate of the model's config.")
    zero_stage: ZeroStage = flag(0, help="DeepSpeed ZeRO stage, 0 to 3.")
    eval_interval: int = flag(
        0,
        at_least=0,
        may_change=True,
        help="Optimizer steps between evaluations, at which step 2 also saves, beside those before training and after "
        "each epoch; 0: none.",
    )
    eval_iters: int = flag(100, at_least=0, may_change=True, help="Batches per evaluation and rank; 0: all.")


@dataclass(frozen=True)
class ScheduleConfig(Section):
    """How long to train and along which learning-rate curve."""

    group: ClassVar[str] = "schedule"

    num_train_epochs: int = flag(1, at_least=1, help="Passes over this step's share of the data.")
    max_steps: int = flag(
        0, at_least=0, aliases=("test_stop_step",), help="Stop after this many steps; 0: when the epochs are done."
    )
    gradient_accumulation_steps: int = flag(1, at_least=1, help="Micro-batches per optimizer step.")
    lr_scheduler_type: SchedulerName = flag("cosine", help="Learning-rate curve.")
    num_warmup_steps: int | None = flag(
        None, at_least=0, help="Optimizer steps of linear warm-up; wins over --warmup_ratio."
    )
    warmup_ratio: float = flag(0.0, at_least=0, below=1, help="Warm-up as a share of all optimizer steps.")

    def warmup_steps(self, total_steps: int) -> int:
        """Optimizer steps of linear warm-up in a run of `total_steps` optimizer steps."""
        if self.num_warmup_steps is not None:
            return self.num_warmup_steps
        return round(self.warmup_ratio * total_steps)

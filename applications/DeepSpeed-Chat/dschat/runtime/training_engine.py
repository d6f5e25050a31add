"""What this package uses of a DeepSpeed engine, as a type: the library brings none."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor, nn


class TrainingEngine(Protocol):
    """A DeepSpeed engine that trains a model; all ranks call every method together.

    Between `backward` and `step` it accumulates gradients; the `step` after the last micro-batch changes the weights.
    Only `stepping.step_all` may make that one.
    """

    _config: Any
    """Its settings as DeepSpeed parsed them; private, for `reshape` alone."""

    @property
    def module(self) -> nn.Module:
        """The model; under ZeRO-3 its weights are empty but for the moments in which they are used."""
        ...

    @property
    def optimizer(self) -> Any:
        """DeepSpeed's wrapper, of another class at every ZeRO stage and precision."""
        ...

    @property
    def lr_scheduler(self) -> Any:
        """The learning-rate curve, as transformers makes it."""
        ...

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        """What the model's forward returns."""
        ...

    def train(self) -> Any:
        """Switch dropout on."""
        ...

    def eval(self) -> Any:
        """Switch dropout off."""
        ...

    def backward(self, loss: Tensor) -> Any:
        """Add the gradient of a scalar, divided by the accumulated micro-batches and averaged over the ranks."""
        ...

    def step(self) -> Any:
        """Count a micro-batch; after the last one change the weights."""
        ...

    def set_gradient_accumulation_boundary(self, is_boundary: bool) -> Any:
        """Say whether the micro-batch in hand is the last one, where they are not counted."""
        ...

    def get_lr(self) -> list[float]:
        """The present learning rate of each group of parameters."""
        ...

    def get_global_grad_norm(self) -> float | Tensor | None:
        """Norm of the gradient of the last step over all weights, None where the stage does not keep it."""
        ...

    def zero_optimization_stage(self) -> int:
        """0 to 3."""
        ...

    def fp16_enabled(self) -> bool:
        """Whether losses are scaled."""
        ...

    def save_checkpoint(self, save_dir: str, *, tag: str, save_latest: bool) -> Any:
        """Write weights, optimizer, schedule and loss scale to `save_dir/tag`."""
        ...

    def load_checkpoint(self, load_dir: str, *, tag: str) -> tuple[str | None, Any]:
        """Take them back; the path is None where there are none."""
        ...

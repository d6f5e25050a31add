"""What generation needs of a DeepSpeed engine."""

from __future__ import annotations

from dataclasses import dataclass

from transformers import PreTrainedModel


@dataclass
class PlainEngine:
    """An engine that partitions nothing."""

    module: PreTrainedModel

    def zero_optimization_stage(self) -> int:
        """Of ZeRO."""
        return 0

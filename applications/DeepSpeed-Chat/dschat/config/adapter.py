"""How one model is adapted by LoRA, in plain values that the flags of any step give."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class AdapterSettings:
    """LoRA of one model (Hu et al. 2021, arXiv 2106.09685): y = W x + (alpha / rank) B A x with W frozen."""

    rank: int
    """Rows of A [rank, in] and columns of B [out, rank]."""
    alpha: float
    module_names: tuple[str, ...]
    """Parts of the names of the linear layers to adapt; none for every linear layer but the output layer."""
    learning_rate: float
    """Peak learning rate of A and B."""
    alone: bool
    """Whether everything but adapter and score head is frozen."""
    quantized: bool
    """Whether the frozen linear layers are kept in 4 bits."""
    role: str
    """How the flags of this model start: "", "actor_" or "critic_", for messages."""

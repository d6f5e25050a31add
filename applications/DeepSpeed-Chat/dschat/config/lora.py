"""Settings of LoRA adapters, and one model's adapter in plain values that the flags of any step give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dschat.config.flag import Section, flag
from dschat.errors import UserError

Quantization = Literal["none", "4bit"]

LEARNING_RATE = 5e-4
RANK_FLAGS = ("lora_dim", "actor_lora_dim", "critic_lora_dim")


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


@dataclass(frozen=True)
class AdaptationConfig(Section):
    """What all LoRA adapters of a step have in common."""

    group: ClassVar[str] = "LoRA"

    only_optimize_lora: bool = flag(
        False,
        help="Freeze everything but the adapter and a reward model's head; without it the adapted matrices alone are "
        "frozen.",
    )
    lora_alpha: float = flag(
        1.0,
        above=0,
        needs=RANK_FLAGS,
        help="Scale of the adapter: its product is multiplied by this over its rank (published: 1).",
    )


@dataclass(frozen=True)
class LoraConfig(Section):
    """The LoRA adapter of step 1 or 2."""

    group: ClassVar[str] = "LoRA"

    lora_dim: int = flag(0, at_least=0, help="Rank of the adapter; 0: none, all weights are trained.")
    lora_module_name: list[str] = flag(
        [], needs="lora_dim", help="Parts of the names of the linear layers to adapt; default: all of the blocks."
    )
    lora_learning_rate: float = flag(
        LEARNING_RATE, above=0, needs="lora_dim", help="Peak learning rate of the adapter."
    )
    quantize: Quantization = flag(
        "none", help="4bit: keep the frozen linear layers in 4 bits (QLoRA); needs a GPU and bitsandbytes."
    )

    def adapter(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The adapter that these flags describe, None without one."""
        return _adapter(self.lora_dim, self.lora_module_name, self.lora_learning_rate, self.quantize, "", common)


@dataclass(frozen=True)
class ActorCriticLoraConfig(Section):
    """The LoRA adapters of step 3."""

    group: ClassVar[str] = "LoRA"

    actor_lora_dim: int = flag(0, at_least=0, help="Rank of the actor's adapter; 0: none.")
    critic_lora_dim: int = flag(0, at_least=0, help="Rank of the critic's adapter; 0: none.")
    actor_lora_module_name: list[str] = flag(
        [],
        needs="actor_lora_dim",
        help="Parts of the names of the actor's linear layers to adapt; default: all of the blocks.",
    )
    critic_lora_module_name: list[str] = flag(
        [],
        needs="critic_lora_dim",
        help="Parts of the names of the critic's linear layers to adapt; default: all of the blocks.",
    )
    actor_lora_learning_rate: float = flag(
        LEARNING_RATE, above=0, needs="actor_lora_dim", help="Peak learning rate of the actor's adapter."
    )
    critic_lora_learning_rate: float = flag(
        LEARNING_RATE, above=0, needs="critic_lora_dim", help="Peak learning rate of the critic's adapter."
    )
    actor_quantize: Quantization = flag(
        "none", help="4bit: keep the actor's frozen linear layers in 4 bits (QLoRA); needs a GPU and bitsandbytes."
    )
    critic_quantize: Quantization = flag("none", help="The same for the critic.")

    def actor(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The actor's adapter, None without one."""
        return _adapter(
            self.actor_lora_dim, self.actor_lora_module_name, self.actor_lora_learning_rate, self.actor_quantize,
            "actor_", common,
        )  # fmt: skip

    def critic(self, common: AdaptationConfig) -> AdapterSettings | None:
        """The critic's adapter, None without one."""
        return _adapter(
            self.critic_lora_dim, self.critic_lora_module_name, self.critic_lora_learning_rate, self.critic_quantize,
            "critic_", common,
        )  # fmt: skip


def check_quantization(
    quantize: Quantization, adapter: AdapterSettings | None, role: str, *, zero_stage: int, dtype: str
) -> None:
    """Raise UserError where one model's frozen weights cannot be kept in 4 bits.

    Args:
        quantize: what was asked for.
        adapter: the model's adapter.
        role: how the model's flags start.
        zero_stage: of the model.
        dtype: of the run.
    """
    if quantize == "none":
        return
    if adapter is None or not adapter.alone:
        raise UserError(f"--{role}quantize {quantize} needs --{role}lora_dim and --only_optimize_lora")
    if zero_stage == 3:
        raise UserError(f"--{role}quantize {quantize} needs --{role}zero_stage 0, 1 or 2: ZeRO 3 can't split 4 bits")
    if dtype == "fp16":
        raise UserError(f"--{role}quantize {quantize} needs --dtype bf16: DeepSpeed's fp16 would convert the weights")


def check_alone(common: AdaptationConfig, *adapters: AdapterSettings | None, flags: str) -> None:
    """Raise UserError where adapters alone are to be trained and there is none; `flags` would make one."""
    if common.only_optimize_lora and not any(adapters):
        raise UserError(f"--only_optimize_lora needs {flags}, the rank of the adapter")


def _adapter(
    rank: int, names: list[str], learning_rate: float, quantize: Quantization, role: str, common: AdaptationConfig
) -> AdapterSettings | None:
    if rank == 0:
        return None
    return AdapterSettings(
        rank=rank,
        alpha=common.lora_alpha,
        module_names=tuple(names),
        learning_rate=learning_rate,
        alone=common.only_optimize_lora,
        quantized=quantize == "4bit",
        role=role,
    )

"""Flags of the published commands that are always on, gone, or not supported, with what to do instead."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from dschat.errors import UserError

logger = logging.getLogger(__name__)

ALWAYS_ON = ("true", "True")
OFF = ("false", "False")


@dataclass(frozen=True)
class RetiredFlag:
    """A flag without a field: the values under which it asks for nothing more, and advice."""

    harmless_values: tuple[str, ...]
    """Values that ask for what happens anyway."""
    advice: str
    """Why, and what to use instead."""


_HYBRID = RetiredFlag(
    (),
    "the hybrid engine is not supported: DeepSpeed 0.19.8 has GPU kernels for Llama, none for Gemma or Qwen and none "
    "that fit the OPT of transformers 5; drop it, answers are generated with the gathered weights",
)
_PADDING = RetiredFlag(("0", "1"), "scores are found from the attention mask, whatever the padding")

RETIRED_FLAGS: dict[str, RetiredFlag] = {
    "deepspeed": RetiredFlag(ALWAYS_ON, "training always runs on DeepSpeed"),
    "compute_fp32_loss": RetiredFlag(ALWAYS_ON, "losses are always computed in float32"),
    "print_loss": RetiredFlag(ALWAYS_ON, "the loss is always shown and written to metrics.jsonl"),
    "enable_test_mode": RetiredFlag(ALWAYS_ON, "--test_stop_step (--max_steps) stops a run by itself"),
    "num_padding_at_beginning": _PADDING,
    "enable_mixed_precision_lora": RetiredFlag(
        OFF, "frozen weights are not gathered in 8 bits; keep them in 4 bits with --actor_quantize 4bit and ZeRO 0 to 2"
    ),
    "enable_hybrid_engine": _HYBRID,
    "unpin_actor_parameters": _HYBRID,
    "release_inference_cache": _HYBRID,
    "inference_tp_size": RetiredFlag(("1",), _HYBRID.advice),
    "tp_gather_partition_size": _HYBRID,
    "align_overflow": RetiredFlag(ALWAYS_ON, "actor and critic always skip a step together where fp16 overflows"),
    "add_eot_token": RetiredFlag(OFF, "it never had an effect; use --end_of_conversation_token"),
    "cost_emb": RetiredFlag((), "no cost matrix is cached any more; drop the flag"),
    "lam_length": RetiredFlag(("0", "0.0"), "it never had an effect; drop the flag"),
}


def reject_unknown_flags(remaining: list[str], known: list[str]) -> None:
    """Decide about command-line words that no field takes.

    Args:
        remaining: the words left over by the parser, in order.
        known: all flags that the command does have, to suggest from.
    Raises:
        UserError: a flag that does not exist, or a retired one with a value that asks for more than what happens.
    """
    for name, value in _group(remaining):
        retired = RETIRED_FLAGS.get(name)
        if retired is None:
            raise UserError(f"there is no flag --{_shown(name)}{_suggestion(name, known)}; --help lists them all")
        if value not in retired.harmless_values:
            raise UserError(f"--{name} {_shown(value)} cannot be used: {retired.advice}")
        logger.info("--%s %s: %s", name, _shown(value), retired.advice)


def _group(words: list[str]) -> list[tuple[str, str]]:
    """`--flag a b --other=c --switch` as (name, value) pairs; a switch has the value `true`."""
    pairs: list[tuple[str, str]] = []
    for word in words:
        if word.startswith("--"):
            name, _, value = word[2:].partition("=")
            pairs.append((name.replace("-", "_"), value))
        elif pairs:
            name, value = pairs[-1]
            pairs[-1] = (name, f"{value} {word}".strip())
        else:
            raise UserError(f"{word!r} is not a flag; flags start with --")
    return [(name, value or "true") for name, value in pairs]


def _shown(text: str) -> str:
    """Text for a message of one line."""
    return text if text.isprintable() else ascii(text)


def _suggestion(name: str, known: list[str]) -> str:
    # difflib is only needed on the way out
    import difflib

    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean --{near[0]}?" if near else ""

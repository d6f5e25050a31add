"""The model that answers: finding it, loading it, and prompts as token ids."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from dschat.answering.options import GenerationOptions
from dschat.answering.prompts import PromptRow
from dschat.data.cache import content_key
from dschat.data.stages import PPO
from dschat.data.tokenise import Sample, TextEncoder
from dschat.errors import UserError
from dschat.generation import EndTokens, Generator, HuggingFaceSettings, build_generator
from dschat.models.causal_lm import for_inference, load_causal_lm
from dschat.models.checked import check_model, find_model

logger = logging.getLogger(__name__)

LONGEST_ROW = 2**20
"""For models whose config sets no limit."""


@dataclass(frozen=True)
class Policy:
    """The model that answers."""

    generator: Generator
    tokenizer: PreTrainedTokenizerBase
    encoder: TextEncoder
    """Its max_length is the longest prompt."""


def policy_path(options: GenerationOptions) -> str:
    """The policy's folder or name.

    Raises:
        UserError: it is not there; where it is in --model itself, the message says which flag helps.
    """
    if not options.no_actor_folder and not Path(options.model_folder).is_dir():
        if (Path(options.model) / "config.json").is_file():
            raise UserError(f"--model {options.model} has no actor folder but is a model; add --no-actor-folder")
        raise UserError(
            f"--model {options.model}: there is no folder {Path(options.model_folder).absolute()}; pass the step-<n> "
            "folder that step 3 wrote, or add --no-actor-folder"
        )
    return find_model("model", options.model_folder)


def weights_key(path: str) -> str | None:
    """Stands for the weight files of a folder (names, sizes and times), None for a name on the hub."""
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = [(file.name, file.stat()) for kind in ("*.safetensors", "*.bin") for file in sorted(folder.glob(kind))]
    return content_key({name: [state.st_size, state.st_mtime_ns] for name, state in files})


def load_policy(path: str, options: GenerationOptions, *, device: torch.device, dtype: torch.dtype) -> Policy:
    """The model that answers, its tokenizer, and how many tokens of a prompt it can take."""
    end = options.end_of_conversation_token
    checked = check_model("model", path, end_of_conversation_token=end, trust_remote_code=options.trust_remote_code)
    tokenizer = checked.tokenizer
    positions = checked.num_positions or LONGEST_ROW
    longest = min(options.max_prompt_length, positions - options.max_new_tokens)
    if longest < 1:
        raise UserError(
            f"--max-new-tokens {options.max_new_tokens} leaves no room for a prompt: {path} has {positions} positions"
        )
    encoder = TextEncoder.create(tokenizer, end_of_conversation=end, max_length=longest)
    ends = EndTokens.of(checked)
    model = for_inference(load_causal_lm(checked, dtype=dtype), device)
    return Policy(build_generator(model, ends, HuggingFaceSettings()), tokenizer, encoder)


def prompt_ids(prompts: Sequence[PromptRow], encoder: TextEncoder) -> list[list[int]]:
    """Token ids of each prompt, cut at the front to the encoder's length, never in the cue.

    Raises:
        UserError: not even a row's cue fits.
    """
    found = []
    tally: Counter[Any] = Counter()
    for number, row in enumerate(prompts, start=1):
        fitted = next(encoder.encode([Sample(row.prompt, cue=row.cue)], PPO, tally), None)
        if fitted is None:
            raise UserError(
                f"prompt {number} does not fit {encoder.max_length} tokens, not even the words that ask for the "
                "answer; raise --max-prompt-length or lower --max-new-tokens"
            )
        found.append(fitted["input_ids"])
    if tally["shortened_prompts"]:
        logger.info("%d prompts are cut at the front to %d tokens", tally["shortened_prompts"], encoder.max_length)
    return found


def sampling_settings(options: GenerationOptions, model_path: str) -> dict[str, Any]:
    """What shapes answers besides their prompts, JSON-serialisable."""
    return {
        "model": model_path,
        "model_files": weights_key(model_path),
        "temperature": options.temperature,
        "top_k": options.top_k,
        "top_p": options.top_p,
        "max_new_tokens": options.max_new_tokens,
        "max_prompt_length": options.max_prompt_length,
        "seed": options.seed,
    }

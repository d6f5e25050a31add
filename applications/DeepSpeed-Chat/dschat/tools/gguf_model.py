"""A model and its tokenizer from a GGUF file, made plain, written as a Hugging Face folder, and asked a question."""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from dschat.errors import UserError
from dschat.models.end_of_turn import template_end, well_known_ends
from dschat.runtime import files
from dschat.tools.gguf_header import GgufHeader

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LIBRARY_ERRORS = (OSError, ValueError, LookupError, TypeError, AttributeError, RuntimeError)
"""What the libraries raise for files whose content they did not expect."""
NO_ARCHITECTURES = {"general", "tokenizer"}
"""Entries of transformers' table that are no model families."""
DIGITS_APART = {"smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"}
"""How a file says that every digit is split off before the rule of GPT-2 (llama.cpp, llama-vocab.cpp)."""
RULE_OF_GPT2 = {"gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "gigachat", "a.x-4.0", "mellum", "exaone4"}
"""How a file says that texts are split by the rule of GPT-2 alone."""
ANSWER_TOKENS = 32
SHORTEST_REPETITION = 8
"""An answer of at least so many tokens, all of them the same, is no answer."""
CHAT_QUESTION, PLAIN_QUESTION = "What is the capital of France?", "The capital of France is"


@dataclass(frozen=True)
class Answer:
    """What a model said to a question."""

    prompt: str
    """With the marks of the chat template."""
    text: str
    """With its special tokens."""


def default_dtype(header: GgufHeader) -> str:
    """The narrowest of fp32, bf16 and fp16 that holds the matrices' numbers as they are; fp32 for quantized ones."""
    return {frozenset({"BF16"}): "bf16", frozenset({"F16"}): "fp16"}.get(frozenset(header.matrix_kinds), "fp32")


def readable_architectures() -> list[str]:
    """Model families that the installed transformers reads from GGUF files."""
    from transformers import integrations
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES

    # newer releases have a second way to read, with a table of its own
    newer = getattr(getattr(integrations, "gguf", None), "GGUF_CONFIG_ARCHS", ())
    return sorted({*GGUF_SUPPORTED_ARCHITECTURES, *newer} - NO_ARCHITECTURES)


def check_architecture(header: GgufHeader, *, name: str) -> None:
    """Raise UserError unless the installed transformers reads this family of models."""
    readable = readable_architectures()
    spellings = {known.replace("_", "").replace("-", "") for known in readable}
    if header.architecture.replace("_", "").replace("-", "") not in spellings:
        from transformers import __version__

        raise UserError(
            f"{name} is a model of the family {header.architecture}, which transformers {__version__} cannot read from "
            f"GGUF files; it reads {', '.join(readable)}"
        )


def read_tokenizer(file: Path, header: GgufHeader, *, name: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a GGUF file, with its chat template.

    Args:
        file: alone in its folder, so that no tokenizer beside it is taken instead.
        header: of that file.
        name: what messages call it.
    """
    try:
        read: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    except LIBRARY_ERRORS as error:
        raise UserError(f"the tokenizer of {name} cannot be read ({_reason(error)})") from error
    tokenizer = _without_added_tokens(read, header.lengths.get("tokenizer.ggml.tokens", len(read)))
    for trace in ("is_local", "local_files_only"):
        # how it was read here says nothing about how others may read it
        tokenizer.init_kwargs.pop(trace, None)
    _mend_splitting(tokenizer, header)
    return tokenizer


def _without_added_tokens(tokenizer: PreTrainedTokenizerBase, num_tokens: int) -> PreTrainedTokenizerBase:
    """The same tokenizer without tokens beyond the file's own, for which the model has no row.

    transformers adds the special tokens of its own classes, such as <|endoftext|> of GPT-2, to every vocabulary.
    """
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in parts["added_tokens"] if token["id"] < num_tokens]
    if len(kept) == len(parts["added_tokens"]):
        return tokenizer
    parts["added_tokens"] = kept
    texts = {token["content"] for token in kept if token["special"]}
    named = {
        name: text for name, text in tokenizer.special_tokens_map.items() if isinstance(text, str) and text in texts
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(parts)),
        chat_template=tokenizer.chat_template,
        extra_special_tokens=sorted(texts - set(named.values())),
        **named,
    )


def _mend_splitting(tokenizer: PreTrainedTokenizerBase, header: GgufHeader) -> None:
    """Split texts as the model's own tokenizer does where transformers takes the rule of GPT-2 for want of a better."""
    rule = str(header.settings.get("tokenizer.ggml.pre", "default"))
    backend = tokenizer.backend_tokenizer
    parts = json.loads(backend.to_str())["pre_tokenizer"] or {}
    if parts.get("type") != "ByteLevel" or not parts.get("use_regex") or rule in RULE_OF_GPT2:
        return
    if rule in DIGITS_APART:
        digits = pre_tokenizers.Split(Regex(r"\p{N}"), behavior="isolated")
        backend.pre_tokenizer = pre_tokenizers.Sequence([digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    else:
        logger.warning(
            "the file splits texts by the rule %r, for which that of GPT-2 is taken: some texts may get other tokens "
            "than the model was trained with",
            rule,
        )


def read_model(file: Path, *, dtype: str, name: str) -> PreTrainedModel:
    """The model of a GGUF file as an ordinary one, that can be trained and saved.

    Args:
        file: the GGUF file.
        dtype: what its weights become: fp32, bf16 or fp16.
        name: what messages call it.
    """
    try:
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        auto_class: Any = AutoModelForCausalLM
        model, report = auto_class.from_pretrained(
            file.parent, gguf_file=file.name, config=config, dtype=DTYPES[dtype], output_loading_info=True
        )
    except LIBRARY_ERRORS as error:
        raise UserError(f"the model in {name} cannot be read ({_reason(error)})") from error
    if report["missing_keys"]:
        missing = sorted(report["missing_keys"])
        raise UserError(
            f"{name} lacks {len(missing)} of its weights, {missing[0]} among them; take a file of the whole model"
        )
    return _made_plain(model)


def _made_plain(model: PreTrainedModel) -> PreTrainedModel:
    """The same model without the mark of a quantized one, which could be neither trained nor saved."""
    packed = [name for name, weight in model.named_parameters() if not weight.is_floating_point()]
    if packed:
        raise UserError(f"the weight {packed[0]} stayed quantized; uninstall the package kernels, and import again")
    for place in (model, model.config):
        for mark in ("hf_quantizer", "quantization_method", "quantization_config", "is_quantized"):
            place.__dict__.pop(mark, None)
    return model


def end_tokens(tokenizer: PreTrainedTokenizerBase, header: GgufHeader) -> list[int]:
    """Ids of all tokens that end an answer, EOS first.

    The end of a turn is what the file names or the chat template writes; where neither does, any well-known one.
    """
    named = header.settings.get("tokenizer.ggml.eot_token_id")
    turn = [] if named is None else [int(named)]
    if (end := template_end(tokenizer)) is not None:
        turn.append(end)
    eos = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    return list(dict.fromkeys(eos + (turn or well_known_ends(tokenizer))))


def set_special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, ends: list[int]) -> None:
    """Give the model a generation config with all tokens that end an answer, and the tokenizer the longest length."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if positions is not None:
        tokenizer.model_max_length = positions
    # a new one: what was made from the model's config is made again from it on use, with EOS alone
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=ends[0] if len(ends) == 1 else ends,
        pad_token_id=tokenizer.pad_token_id,
    )


def write_aside(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Path:
    """Write what will become a folder beside it, and return where."""
    aside = files.aside(folder)
    with files.explained(f"the model {folder.name}", aside):
        files.remove(aside)
        model.save_pretrained(aside)
        tokenizer.save_pretrained(aside)
        for path in aside.iterdir():
            files.sync_file(path)
    return aside


@torch.no_grad()
def ask(folder: Path, question: str | None, *, name: str) -> Answer:
    """Let the model of a folder answer greedily, as any user of transformers would.

    Args:
        folder: a Hugging Face folder.
        question: asked through the chat template, or continued where there is none; None for one about France.
        name: what messages call the model.
    Raises:
        UserError: numbers that are not finite, or one token again and again.
    """
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    if template_end(tokenizer) is None:
        prompt = question or PLAIN_QUESTION
        inputs = tokenizer(prompt, return_tensors="pt")
    else:
        turns = [{"role": "user", "content": question or CHAT_QUESTION}]
        prompt = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        # the template has written the special tokens
        inputs = tokenizer(prompt, return_tensors="pt", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    if not torch.isfinite(model(**inputs).logits).all():
        raise UserError(f"{name} was read, but its logits are not finite; take another quantization of the model")
    answer = model.generate(**inputs, do_sample=False, max_new_tokens=ANSWER_TOKENS)[0, inputs.input_ids.shape[1] :]
    text = str(tokenizer.decode(answer))
    if len(answer) >= SHORTEST_REPETITION and len(set(answer.tolist())) == 1:
        raise UserError(
            f"{name} was read, but answers {prompt!r} with one token again and again ({text[:20]!r}); take another "
            "quantization of the model, or pass --skip_check if it is to be so"
        )
    return Answer(prompt=prompt, text=text)


def _reason(error: Exception) -> str:
    """An error of a library in one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:300] if text else type(error).__name__

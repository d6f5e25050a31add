"""Actor and reference: causal language models, their size, and forwards on left- and right-padded rows."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig, PreTrainedModel

from dschat.errors import UserError
from dschat.models.checked import CheckedModel
from dschat.models.tokenizer import Vocabulary
from dschat.models.weights import listed, read_model

logger = logging.getLogger(__name__)

PAD_TO_MULTIPLE = 8
NO_TOKEN_LOGIT = -1e4
"""In place of the logit of an id that no token has: a probability of 0 in every precision, yet finite, so that neither
entropies (0 times -inf) nor checks for broken logits trip over it."""


def load_causal_lm(
    checked: CheckedModel, *, dtype: torch.dtype, dropout: float | None = None, four_bit: bool = False
) -> PreTrainedModel:
    """A causal language model with at least one embedding row per token.

    Args:
        checked: the checkpoint.
        dtype: precision of the weights.
        dropout: overrides every dropout rate, None to keep them.
        four_bit: keep the linear layers but the last in 4 bits, frozen.
    Raises:
        UserError: the weights cannot be read, or are not all there.
    """
    options = {"dtype": dtype, "trust_remote_code": checked.trust_remote_code, **quantization(dtype, four_bit)}
    model, missing = read_model(
        AutoModelForCausalLM,
        checked.path,
        what="causal language model",
        config=checked.own_config(dropout=dropout),
        options=options,
    )
    if missing:
        raise UserError(
            f"{checked.path} lacks the weights {listed(missing)} of a causal language model; pass a language model, "
            "not a reward model"
        )
    grow_embeddings(model, checked.vocabulary.size)
    _declare_ends(model, checked)
    return model


def _declare_ends(model: PreTrainedModel, checked: CheckedModel) -> None:
    """Have a saved model say what ends its answers, where that is more than its EOS, to whoever generates with it."""
    if len(checked.end_ids) == 1:
        return
    said = model.generation_config.to_dict() if model.generation_config else {}
    # a config that is marked as repeating config.json is made anew by the library, with the EOS alone
    said.pop("_from_model_config", None)
    said |= {"eos_token_id": list(checked.end_ids), "pad_token_id": checked.pad_token_id}
    model.generation_config = GenerationConfig.from_dict(said)


def quantization(dtype: torch.dtype, four_bit: bool) -> dict[str, Any]:
    """What `from_pretrained` takes to keep linear layers in 4 bits: NF4, doubly quantized (QLoRA, arXiv 2305.14314)."""
    if not four_bit:
        return {}
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )
    return {"quantization_config": settings}


def grow_embeddings(model: PreTrainedModel, num_rows: int) -> None:
    """Add embedding rows up to `num_rows` where the model has fewer; tables are never made smaller."""
    if num_rows > model.config.get_text_config().vocab_size:
        model.resize_token_embeddings(num_rows, pad_to_multiple_of=PAD_TO_MULTIPLE)
        logger.info("grew the embedding table to %d rows", model.config.get_text_config().vocab_size)


def enable_gradient_checkpointing(model: PreTrainedModel) -> None:
    """Recompute activations in the backward pass."""
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})


def for_inference(model: PreTrainedModel, device: torch.device) -> PreTrainedModel:
    """The same model on a device, in eval mode."""
    torch.nn.Module.to(model, device)
    return model.eval()


def position_ids(attention_mask: Tensor) -> Tensor:
    """Position of each token among the real ones, [B, L] int64; padding on either side changes nothing for them."""
    return (attention_mask.long().cumsum(dim=-1) - 1).clamp_min(0)


@cache
def _takes_position_ids(model_class: type) -> bool:
    return "position_ids" in inspect.signature(getattr(model_class, "forward")).parameters  # noqa: B009


def positional_inputs(model_class: type, attention_mask: Tensor) -> dict[str, Tensor]:
    """`attention_mask` [B, L] and, where the architecture has them, position ids, as arguments of its forward."""
    inputs = {"attention_mask": attention_mask}
    if _takes_position_ids(model_class):
        inputs["position_ids"] = position_ids(attention_mask)
    return inputs


def response_logits(
    model: Callable[..., Any], model_class: type, sequences: Tensor, mask: Tensor, *, width: int
) -> Tensor:
    """Logits that predict the last `width` tokens of each row.

    Args:
        model: a causal language model, or what is called like it: a DeepSpeed engine, a model without its adapter.
        model_class: the model's class.
        sequences: [B, L] token ids.
        mask: [B, L], 1 on real tokens.
        width: number of predicted tokens, R < L.
    Returns:
        [B, R, V] in the model's precision; entry t predicts token L - R + t.
    """
    inputs = positional_inputs(model_class, mask)
    # one more than needed: the last position predicts a token beyond the row
    output = model(input_ids=sequences, logits_to_keep=width + 1, use_cache=False, **inputs)
    return output.logits[:, -width - 1 : -1]


def real_logits(logits: Tensor, vocabulary: Vocabulary) -> Tensor:
    """Logits of the ids that have a token, so that what is scored is what sampling draws from.

    Args:
        logits: [..., rows], one for each row of the model's table.
        vocabulary: of the tokenizer.
    Returns:
        [..., V], V the vocabulary's size: rows beyond it are dropped, gaps in it have no probability and no gradient.
    """
    logits = logits[..., : vocabulary.size]
    if not vocabulary.gaps:
        return logits
    return logits.index_fill(-1, torch.tensor(vocabulary.gaps, device=logits.device), NO_TOKEN_LOGIT)


def token_log_probs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probabilities of given tokens, float32 whatever the precision of the logits.

    The same as `logits.float().log_softmax(-1).gather(-1, tokens)`, one row at a time, so that no second table of all
    logits exists in float32.

    Args:
        logits: [B, R, V] or [N, V].
        tokens: [B, R] or [N] int64.
    Returns:
        [B, R] or [N] float32.
    """
    if logits.dim() == 3:
        return torch.stack([token_log_probs(row, ids) for row, ids in zip(logits, tokens, strict=True)])
    chosen = logits.gather(-1, tokens[:, None]).squeeze(-1).float()
    return chosen - logits.float().logsumexp(dim=-1)


def token_entropies(logits: Tensor) -> Tensor:
    """Entropy in nats of the distribution that each position's logits [B, R, V] give; [B, R] float32, differentiable.

    One row at a time, as in `token_log_probs`.
    """

    def of_row(row: Tensor) -> Tensor:
        log_probs = row.float().log_softmax(dim=-1)
        return -(log_probs.exp() * log_probs).sum(dim=-1)

    return torch.stack([of_row(row) for row in logits])

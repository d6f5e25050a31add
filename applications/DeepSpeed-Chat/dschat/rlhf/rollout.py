"""Sampling answers and finding where they end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, PreTrainedTokenizerBase

from dschat.config.ppo import RolloutConfig
from dschat.data.batches import PromptBatch
from dschat.rlhf.experience import Rollout
from dschat.runtime.distributed import ZERO_PARTITIONED, whole_weights


@dataclass(frozen=True)
class AnswerTokens:
    """The token ids that sampling has to know."""

    stop: tuple[int, ...]
    """Each ends an answer: the tokenizer's EOS and the end-of-conversation token."""
    pad: int
    """Fills rows that have ended."""
    vocab_size: int
    """Number of real tokens; rows of the model beyond it are padding and are never sampled."""


class FiniteLogits(LogitsProcessor):
    """Keeps sampling alive where logits are NaN or infinite, so that all ranks can decide about it together.

    One rank that broke off alone would leave the others waiting for it.
    """

    def __init__(self) -> None:
        self._broken: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Finite scores [B, V] of the next token, minus infinity for tokens that must not be sampled."""
        broken = (scores.isnan() | scores.isposinf()).any(dim=-1)
        self._broken = broken if self._broken is None else self._broken | broken
        return torch.nan_to_num(scores, nan=0.0, neginf=-torch.inf)

    def take(self, rows: int, device: torch.device) -> Tensor:
        """[B] float32 for the `rows` rows sampled last: NaN where any of a row's logits was not finite, else 0."""
        broken, self._broken = self._broken, None
        clean = torch.zeros(rows, device=device)
        return clean if broken is None else clean.masked_fill(broken, torch.nan)


def sample_answers(
    engine: Any,
    prompts: PromptBatch,
    tokens: AnswerTokens,
    rollout: RolloutConfig,
    *,
    gather: bool,
    finite: FiniteLogits | None = None,
) -> Tensor:
    """Continue each prompt with the actor, which must be in eval mode.

    Args:
        engine: the actor's DeepSpeed engine.
        prompts: input_ids and attention_mask [B, P], left-padded.
        tokens: end and padding tokens.
        rollout: temperature, top-k, top-p and the longest answer.
        gather: ZeRO-3: gather the weights once for all tokens.
        finite: learns which rows had logits that are not finite.
    Returns:
        [B, P + R] int64, R at most --max_answer_seq_len; what follows an end token is padding.
    """
    if engine.module.training:
        raise RuntimeError("generation in training mode gives wrong tokens under gradient checkpointing; call eval()")
    model_rows = engine.module.config.get_text_config().vocab_size
    settings = GenerationConfig(
        do_sample=True,
        temperature=rollout.temperature,
        top_k=rollout.sampling_top_k,
        top_p=rollout.sampling_top_p,
        max_new_tokens=rollout.max_answer_seq_len,
        eos_token_id=list(tokens.stop),
        pad_token_id=tokens.pad,
        suppress_tokens=list(range(tokens.vocab_size, model_rows)) or None,
    )
    # the default of synced_gpus depends on an object that may be gone: say it
    in_step = engine.zero_optimization_stage() == ZERO_PARTITIONED and not gather
    with torch.no_grad(), whole_weights(engine, gather=gather) as model:
        return model.generate(
            input_ids=prompts.input_ids,
            attention_mask=prompts.attention_mask,
            generation_config=settings,
            logits_processor=LogitsProcessorList([finite or FiniteLogits()]),
            synced_gpus=in_step,
        )


def answer_mask(responses: Tensor, stop: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Which tokens belong to an answer.

    Nothing is inferred from the padding token, which may be the EOS itself or may be sampled inside an answer.

    Args:
        responses: [B, R] int64.
        stop: the ids that end an answer.
    Returns:
        [B, R] bool, True up to and including the first stop token; [B] bool, whether there is one.
    """
    is_stop = torch.isin(responses, torch.tensor(list(stop), device=responses.device))
    stopped_before = is_stop.cumsum(dim=-1) - is_stop.long()
    return stopped_before == 0, is_stop.any(dim=-1)


def make_rollout(
    sequences: Tensor, prompts: PromptBatch, tokens: AnswerTokens, tokenizer: PreTrainedTokenizerBase
) -> Rollout:
    """Tell prompt, answer and padding apart; rows that answer nothing are marked unusable.

    Args:
        sequences: [B, P + R] int64, as `sample_answers` gives them.
        prompts: the batch that was continued, [B, P].
        tokens: end and padding tokens.
        tokenizer: turns ids into the texts that reward sources read.
    """
    width = prompts.input_ids.shape[1]
    responses = sequences[:, width:]
    mask, ended = answer_mask(responses, tokens.stop)
    says_something = mask.sum(dim=-1) > ended.long()
    return Rollout(
        sequences=sequences,
        attention_mask=torch.cat([prompts.attention_mask, mask.long()], dim=-1),
        response_mask=mask & says_something[:, None],
        ended=ended,
        records=prompts.records,
        prompts=_texts(prompts.input_ids, prompts.attention_mask.bool(), tokenizer),
        answers=_texts(responses, mask, tokenizer),
    )


def _texts(ids: Tensor, mask: Tensor, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
    rows = (row[keep].tolist() for row, keep in zip(ids, mask, strict=True))
    return tuple(tokenizer.decode(row, skip_special_tokens=True) for row in rows)

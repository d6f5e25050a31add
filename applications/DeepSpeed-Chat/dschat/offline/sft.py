"""Step 1: supervised fine-tuning of a causal language model."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from dschat.config.steps import SFTConfig
from dschat.data.batches import SFTBatch
from dschat.data.collate import IGNORED_LABEL, collate_sft
from dschat.data.stages import SFTStage
from dschat.models.causal_lm import (
    enable_gradient_checkpointing,
    load_causal_lm,
    positional_inputs,
    token_log_probs,
)
from dschat.models.lora import add_adapter
from dschat.offline.loop import BatchResult, Rows
from dschat.offline.setup import prepare_supervised, train_supervised
from dschat.preparation import Prepared, claimed
from dschat.runtime.deepspeed_config import TORCH_DTYPES, usable_dtype
from dschat.runtime.metrics import Sums


@dataclass(frozen=True)
class SFTObjective:
    """Cross-entropy of the answer's tokens given what stands before them."""

    pad_token_id: int
    loss_on_prompt: bool

    def collate(self, items: Rows) -> SFTBatch:
        """Right-padded batch; labels are -100 where nothing is learned."""
        return collate_sft(items, pad_token_id=self.pad_token_id, loss_on_prompt=self.loss_on_prompt)

    def weight(self, batch: SFTBatch) -> int:
        """Number of tokens with a label."""
        return int((batch.labels[:, 1:] != IGNORED_LABEL).sum())

    def num_tokens(self, batch: SFTBatch) -> int:
        """Number of real tokens."""
        return int(batch.attention_mask.sum())

    def __call__(self, engine: Any, batch: SFTBatch) -> BatchResult:
        """Summed negative log-likelihood, and the share of tokens that the model would have chosen itself."""
        inputs = positional_inputs(type(engine.module), batch.attention_mask)
        logits = engine(input_ids=batch.input_ids, use_cache=False, **inputs).logits[:, :-1]
        labels = batch.labels[:, 1:]
        counted = labels != IGNORED_LABEL
        log_probs = token_log_probs(logits, labels.clamp_min(0))
        hits = (logits.detach().argmax(dim=-1) == labels) & counted
        return BatchResult(
            loss_sum=-torch.where(counted, log_probs, 0.0).sum(),
            metrics=Sums.of({"token_accuracy": (hits.sum(), counted.sum())}),
        )


def run_sft(config: SFTConfig) -> None:
    """Train step 1 from checked settings to a saved model folder."""
    with claimed(config.output, dry_run=config.runtime.dry_run):
        prepared = prepare_supervised(config, SFTStage(more_paths=tuple(config.sft_data.sft_only_data_path)))
        objective = SFTObjective(int(prepared.tokenizer.pad_token_id), config.sft_data.loss_on_prompt)
        train_supervised(
            config,
            prepared,
            objective,
            partial(_load, config, prepared),
            hf_model=lambda module: module,
            title="SFT",
            shown=("loss", "token_accuracy", "eval_loss", "learning_rate"),
        )


def _load(config: SFTConfig, prepared: Prepared) -> nn.Module:
    model = load_causal_lm(
        prepared.model,
        dtype=TORCH_DTYPES[usable_dtype(config.runtime)],
        dropout=config.training.dropout,
        four_bit=config.adapter is not None and config.adapter.quantized,
    )
    if config.adapter is not None:
        add_adapter(model, config.adapter, seed=config.runtime.seed)
    if config.training.gradient_checkpointing:
        enable_gradient_checkpointing(model)
    return model

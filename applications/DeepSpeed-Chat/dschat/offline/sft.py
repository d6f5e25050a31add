"""Step 1: supervised fine-tuning of a causal language model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dschat.config.steps import SFTConfig
from dschat.data.batches import SFTBatch
from dschat.data.collate import IGNORED_LABEL, collate_sft
from dschat.data.stages import SFTStage
from dschat.models.causal_lm import load_causal_lm, positional_inputs, token_log_probs
from dschat.offline.loop import BatchResult, Rows
from dschat.offline.setup import OfflineStage, run_offline
from dschat.runtime.metrics import Sums
from dschat.runtime.training_engine import TrainingEngine


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

    def __call__(self, engine: TrainingEngine, batch: SFTBatch) -> BatchResult:
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
    loss_on_prompt = config.sft_data.loss_on_prompt
    stage = OfflineStage(
        data=SFTStage(more_paths=tuple(config.sft_data.sft_only_data_path)),
        objective=lambda model: SFTObjective(model.pad_token_id, loss_on_prompt),
        load=load_causal_lm,
        title="SFT",
        shown_metrics=("loss", "token_accuracy", "eval_loss", "learning_rate"),
    )
    run_offline(config, stage)

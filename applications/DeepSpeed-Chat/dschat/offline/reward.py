"""Step 2: the reward model, trained on pairs of answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from dschat.config.steps import RewardTrainingConfig
from dschat.data.batches import PairBatch
from dschat.data.collate import collate_pairs
from dschat.data.stages import REWARD
from dschat.models.causal_lm import enable_gradient_checkpointing
from dschat.models.lora import add_adapter
from dschat.models.reward_model import end_scores, load_token_scorer, pairwise_loss
from dschat.offline.loop import BatchResult, Rows
from dschat.offline.setup import prepare_supervised, train_supervised
from dschat.preparation import Prepared, claimed
from dschat.runtime.deepspeed_config import TORCH_DTYPES, usable_dtype
from dschat.runtime.metrics import Sums


@dataclass(frozen=True)
class PairwiseObjective:
    """The chosen answer should score above the rejected one."""

    pad_token_id: int

    def collate(self, items: Rows) -> PairBatch:
        """Right-padded batch: chosen rows, then rejected rows."""
        return collate_pairs(items, pad_token_id=self.pad_token_id)

    def weight(self, batch: PairBatch) -> int:
        """Number of pairs."""
        return batch.input_ids.shape[0] // 2

    def num_tokens(self, batch: PairBatch) -> int:
        """Number of real tokens."""
        return int(batch.attention_mask.sum())

    def __call__(self, engine: Any, batch: PairBatch) -> BatchResult:
        """Summed pairwise loss; accuracy and mean end scores."""
        scores = engine(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        losses = pairwise_loss(scores, batch.attention_mask, batch.input_ids)
        chosen, rejected = end_scores(scores.detach(), batch.attention_mask).chunk(2)
        pairs = torch.tensor(len(losses), device=losses.device)
        return BatchResult(
            loss_sum=losses.sum(),
            metrics=Sums.of(
                {
                    "accuracy": ((chosen > rejected).sum(), pairs),
                    "chosen_score": (chosen.sum(), pairs),
                    "rejected_score": (rejected.sum(), pairs),
                }
            ),
        )


def run_reward_training(config: RewardTrainingConfig) -> None:
    """Train step 2 from checked settings to a saved reward model."""
    with claimed(config.output, dry_run=config.runtime.dry_run):
        prepared = prepare_supervised(config, REWARD)
        train_supervised(
            config,
            prepared,
            PairwiseObjective(int(prepared.tokenizer.pad_token_id)),
            partial(_load, config, prepared),
            hf_model=lambda scorer: scorer.model,
            title="reward model",
            shown=("loss", "accuracy", "eval_loss", "eval_accuracy", "learning_rate"),
        )


def _load(config: RewardTrainingConfig, prepared: Prepared) -> nn.Module:
    scorer = load_token_scorer(
        prepared.model,
        fresh_head=True,
        dtype=TORCH_DTYPES[usable_dtype(config.runtime)],
        dropout=config.training.dropout,
        four_bit=config.adapter is not None and config.adapter.quantized,
    )
    if config.adapter is not None:
        add_adapter(scorer.model, config.adapter, seed=config.runtime.seed)
    if config.training.gradient_checkpointing:
        enable_gradient_checkpointing(scorer.model)
    return scorer

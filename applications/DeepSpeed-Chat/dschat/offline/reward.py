"""Step 2: the reward model, trained on pairs of answers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch

from dschat.config.steps import RewardTrainingConfig
from dschat.data.batches import PairBatch
from dschat.data.collate import collate_pairs
from dschat.data.stages import REWARD
from dschat.models.reward_model import end_scores, load_token_scorer, pairwise_loss
from dschat.offline.loop import BatchResult, Rows
from dschat.offline.setup import OfflineStage, run_offline
from dschat.runtime.metrics import Sums
from dschat.runtime.training_engine import TrainingEngine


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

    def __call__(self, engine: TrainingEngine, batch: PairBatch) -> BatchResult:
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
    stage = OfflineStage(
        data=REWARD,
        objective=lambda model: PairwiseObjective(model.pad_token_id),
        load=partial(load_token_scorer, fresh_head=True),
        title="reward model",
        shown_metrics=("loss", "accuracy", "eval_loss", "eval_accuracy", "learning_rate"),
    )
    run_offline(config, stage)

"""Reward model and critic: a sequence-classification checkpoint that scores every token."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from dschat.errors import UserError
from dschat.models.causal_lm import grow_embeddings, positional_inputs, quantization
from dschat.models.checked import CheckedModel
from dschat.models.weights import listed, read_model, weight_names

HEAD_WEIGHT = "score.weight"


class TokenScorer(nn.Module):
    """A sequence-classification model with one label, asked for the score at every token.

    The library's own pooling takes the last token that is not padding and so misses the final EOS where EOS is the
    padding token; scores at every token make the choice ours.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Scores [B, L] float32 of tokens input_ids [B, L] under attention_mask [B, L] (1 on real tokens)."""
        backbone = self.model.get_submodule(self.model.base_model_prefix)
        inputs = positional_inputs(type(backbone), attention_mask)
        hidden = backbone(input_ids=input_ids, use_cache=False, **inputs).last_hidden_state
        scores: Tensor = self.model.get_submodule("score")(hidden)
        return scores.squeeze(-1).float()


def hugging_face_model(module: nn.Module) -> PreTrainedModel:
    """The library's model in the module that an engine holds: the module itself, or what a token scorer asks."""
    model = module.model if isinstance(module, TokenScorer) else module
    assert isinstance(model, PreTrainedModel)
    return model


def load_token_scorer(
    checked: CheckedModel,
    *,
    fresh_head: bool,
    dtype: torch.dtype,
    dropout: float | None = None,
    four_bit: bool = False,
) -> TokenScorer:
    """A model that scores tokens.

    Args:
        checked: the checkpoint; its padding token goes into the config, which the library's own pooling reads.
        fresh_head: True to start from a language model with a new score head, False to require a trained one.
        dtype: precision of the weights.
        dropout: overrides every dropout rate, None to keep them.
        four_bit: keep the linear layers but the head in 4 bits, frozen.
    Raises:
        UserError: a trained head is required and the checkpoint has none.
    """
    path, config = checked.path, checked.own_config(dropout=dropout)
    config.num_labels = 1
    config.pad_token_id = checked.pad_token_id
    options = {"dtype": dtype, "trust_remote_code": checked.trust_remote_code, **quantization(dtype, four_bit)}
    model, missing = read_model(
        AutoModelForSequenceClassification, path, what="reward model", config=config, options=options
    )
    unexpected_loss = missing - {HEAD_WEIGHT} if fresh_head else missing
    if unexpected_loss:
        raise UserError(_no_head(path) if missing == {HEAD_WEIGHT} else f"{path} lacks the weights {listed(missing)}")
    grow_embeddings(model, checked.vocabulary.size)
    return TokenScorer(model)


def has_head(checked: CheckedModel) -> bool | None:
    """Whether a local folder's weights hold a score head, None for what cannot be told without loading it."""
    folder = Path(checked.path)
    names = weight_names(checked.flag, folder) if folder.is_dir() else None
    return None if names is None else HEAD_WEIGHT in names


def check_has_head(checked: CheckedModel) -> None:
    """Raise UserError if a local folder's weights hold no score head; nothing is loaded. Hub names are not checked."""
    if has_head(checked) is False:
        raise UserError(f"--{checked.flag} {_no_head(checked.path)}")


def pairwise_loss(scores: Tensor, attention_mask: Tensor, input_ids: Tensor) -> Tensor:
    """Loss of each pair: the chosen answer's tokens should score above the rejected answer's.

    For a pair with first differing position d and lengths c and r, the mean over t in [d, max(c, r)) of
    -log sigmoid(s_chosen[t] - s_rejected[t]), where an answer that has ended keeps its end score. (DeepSpeed-Chat's
    loss compares with the scores of padding there.)

    Args:
        scores: [2B, L] float32, rows 0..B-1 chosen, B..2B-1 rejected, right-padded.
        attention_mask: [2B, L], 1 on real tokens.
        input_ids: [2B, L] token ids.
    Returns:
        [B] float32; 0 where the two rows are the same.
    """
    real = attention_mask.bool()
    last = real.sum(dim=-1, keepdim=True) - 1
    positions = torch.arange(scores.shape[1], device=scores.device)
    held = scores.gather(-1, torch.minimum(positions, last))
    chosen, rejected = held.chunk(2)
    ids_chosen, ids_rejected = input_ids.masked_fill(~real, -1).chunk(2)
    # cumulative: everything from the first difference on
    compared = (ids_chosen != ids_rejected).cumsum(dim=-1) > 0
    compared &= positions <= torch.maximum(*last.chunk(2))
    losses = torch.where(compared, -F.logsigmoid(chosen - rejected), 0.0)
    return losses.sum(dim=-1) / compared.sum(dim=-1).clamp_min(1)


def end_scores(scores: Tensor, attention_mask: Tensor) -> Tensor:
    """Score [B] at the last real token of each row of scores [B, L], whichever side attention_mask [B, L] pads."""
    positions = torch.arange(scores.shape[1], device=scores.device)
    last = torch.where(attention_mask.bool(), positions, -1).amax(dim=-1, keepdim=True)
    return scores.gather(-1, last).squeeze(-1)


def _no_head(path: str) -> str:
    return f"{path} has no score head: it is a language model; pass the step_<n> folder that step 2 wrote"

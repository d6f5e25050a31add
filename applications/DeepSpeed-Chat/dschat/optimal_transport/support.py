"""The tokens that take part in one transport problem, and the mass of both policies on them.

Legend: N scored positions, V vocabulary, S support tokens, k2 tokens kept per distribution.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dschat.optimal_transport.selection import top_tokens

SupportKind = Literal["position", "batch"]

# exp(-300) is far below what a sampled token can have, and its square still fits into float64.
_LOG_MASS_FLOOR = -300.0


class Support(NamedTuple):
    """Both distributions on a truncated vocabulary; the last bin is the tail, the mass of all other tokens.

    Attributes:
        ids: [N, S] int64, or [1, S] where all positions share one support; distinct tokens in order, then fillers.
        is_bin: [N, S + 1] bool, False for the fillers, which carry no mass; the tail always counts.
        policy: [N, S + 1] float64, log-mass of the policy; -inf for fillers and for an empty tail.
        reference: [N, S + 1] float64, the same for the reference policy.
        token_bin: [N] int64, the bin of the sampled token.
    """

    ids: Tensor
    is_bin: Tensor
    policy: Tensor
    reference: Tensor
    token_bin: Tensor

    def part(self, positions: slice) -> Support:
        """Some of the positions, without the bins that are fillers in all of them.

        The top tokens of two policies that have not drifted far apart are mostly the same, so that the supports of
        most positions are much smaller than 2 k2 + 1.
        """
        ids = self.ids if len(self.ids) != len(self.token_bin) else self.ids[positions]
        is_bin = self.is_bin[positions]
        width = int(is_bin[:, :-1].sum(dim=1).max()) if len(is_bin) else 0

        def narrow(bins: Tensor) -> Tensor:
            return torch.cat([bins[:, :width], bins[:, -1:]], dim=1)

        return Support(
            ids=ids[:, :width],
            is_bin=narrow(is_bin),
            policy=narrow(self.policy[positions]),
            reference=narrow(self.reference[positions]),
            token_bin=self.token_bin[positions],
        )


def build_support(
    policy_logits: Tensor, reference_logits: Tensor, tokens: Tensor, *, top_k: int, kind: SupportKind
) -> Support:
    """Truncates the two next-token distributions of every position to the tokens that matter (WPR, top-k2 truncation).

    The support of a position is top-k2 of the policy, top-k2 of the reference and the sampled token. With
    `kind="batch"` every position gets the union of all positions' supports, as in the published implementation.

    Args:
        policy_logits, reference_logits: [N, V], any floating dtype, temperature 1.
        tokens: [N] int64, sampled tokens.
        top_k: k2, between 1 and V.
    Raises:
        ValueError: NaN or inf in the logits or a token outside the vocabulary, naming the first such position.
    """
    vocab_size = policy_logits.shape[1]
    policy, reference = top_tokens(policy_logits, top_k), top_tokens(reference_logits, top_k)
    in_range = (tokens >= 0) & (tokens < vocab_size)
    if not (policy.is_finite & reference.is_finite & in_range).all():  # the one host synchronization of a call
        _raise_for_first_bad_position(policy.is_finite, reference.is_finite, in_range, tokens, vocab_size)
    ids = torch.cat([policy.ids, reference.ids, tokens[:, None]], dim=1)
    if top_k == vocab_size:
        ids = torch.arange(vocab_size, device=ids.device).expand(len(tokens), -1)
    elif kind == "batch" and len(tokens) > 0:
        ids = ids.unique()[None]
    else:
        ids = ids.sort(dim=1).values
        repeated = F.pad(ids[:, 1:] == ids[:, :-1], (1, 0))
        ids = ids.masked_fill_(repeated, vocab_size).sort(dim=1).values
    has_tail = top_k < vocab_size and not (kind == "batch" and ids.shape[1] == vocab_size)
    token_bin = torch.searchsorted(ids.expand(len(tokens), -1).contiguous(), tokens[:, None])[:, 0]
    is_bin = F.pad(ids < vocab_size, (0, 1), value=True).expand(len(tokens), -1)
    ids = ids.clamp(max=vocab_size - 1)
    return Support(
        ids=ids,
        is_bin=is_bin,
        policy=_log_masses(policy_logits, policy.log_normalizer, ids, is_bin, has_tail=has_tail),
        reference=_log_masses(reference_logits, reference.log_normalizer, ids, is_bin, has_tail=has_tail),
        token_bin=token_bin,
    )


def _log_masses(logits: Tensor, log_normalizer: Tensor, ids: Tensor, is_bin: Tensor, *, has_tail: bool) -> Tensor:
    """Log-probabilities of the support tokens and of the tail, [N, S + 1] float64, without rounding in the sum."""
    chosen = logits.gather(1, ids) if len(ids) == len(logits) else logits[:, ids[0]]
    log_mass = (chosen.float().double() - log_normalizer[:, None]).clamp_(min=_LOG_MASS_FLOOR)
    log_mass = log_mass.masked_fill_(~is_bin[:, :-1], -torch.inf)
    total = log_mass.exp().sum(dim=1, keepdim=True)
    tail = (1.0 - total).clamp_(min=0.0) * has_tail
    return torch.cat([log_mass, tail.log()], dim=1) - (total + tail).log()


def _raise_for_first_bad_position(
    policy_ok: Tensor, reference_ok: Tensor, in_range: Tensor, tokens: Tensor, vocab_size: int
) -> None:
    """Raises ValueError for the first position with unusable input; three [N] bool masks."""
    position = int((~(policy_ok & reference_ok & in_range)).nonzero()[0])
    where = f"at position {position} of {len(tokens)}"
    if not in_range[position]:
        raise ValueError(
            f"token {int(tokens[position])} {where} is outside the vocabulary of {vocab_size:,} tokens; "
            "actor, reference and tokenizer must share one vocabulary"
        )
    name = "reference" if policy_ok[position] else "policy"
    raise ValueError(
        f"the {name} logits hold NaN or inf {where}; lower the learning rate or the loss scale, or train in bf16"
    )

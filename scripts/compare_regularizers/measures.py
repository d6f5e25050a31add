"""What the comparison measures on a policy: reward, distances to the reference, closeness of its likely tokens.

Legend: B prompts, R response, N response tokens, V vocabulary, D embedding width, K top tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from dschat.config.ppo import RolloutConfig
from dschat.data.batches import PromptBatch
from dschat.data.collate import collate_prompts
from dschat.generation import Generator, Sampling
from dschat.models.causal_lm import real_logits, response_logits, token_log_probs
from dschat.optimal_transport import TokenGeometry, TokenPotentials, token_potentials
from dschat.published import EPSILON as PUBLISHED_EPSILON
from dschat.published import MAX_ITER as PUBLISHED_ROUNDS
from dschat.published import TOP_K as PUBLISHED_TOP_K
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources import RewardSource
from dschat.rlhf.rollout import make_rollout

if TYPE_CHECKING:
    from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine

EPSILON_IN_NEAREST = 0.2
MEASURE_ROUNDS, MEASURE_TOLERANCE, MEASURE_TOP_K = 100, 1e-4, 32
TOP_TOKENS = 10
EVALUATION_SEED = 20_260_201
POSITIONS_PER_CHUNK = 512
SHORTEST_SHOWN_ANSWER, LONGEST_SHOWN_ANSWER = 8, 24

Positions = tuple[Tensor, Tensor, Tensor]
"""Logits [N, V] of policy and reference, and the sampled tokens [N]."""


@dataclass(frozen=True)
class Measured:
    """Means over held-out answers: of answers for reward and length, of tokens for the rest."""

    reward: float
    """Score of the reward model, unclipped."""
    kl: float
    """KL(policy || reference) of the next-token distributions, exact, nats per token."""
    wasserstein: float
    """Sinkhorn divergence between them (capped transport, one definition for every run), embedding distance."""
    top_distance: float
    """Mean distance between pairs of the policy's TOP_TOKENS most likely tokens, embedding distance."""
    response_length: float
    """Tokens, the end token included."""


class Examiner:
    """Measures a policy on held-out prompts, with the same prompts, seed and definitions for every run."""

    def __init__(
        self,
        engine: DeepSpeedRLHFEngine,
        rollout: RolloutConfig,
        reward_source: RewardSource,
        tokenizer: PreTrainedTokenizerBase,
        generator: Generator,
        geometry: TokenGeometry,
        *,
        device: torch.device,
        rows: Sequence[Mapping[str, Any]],
    ) -> None:
        """Keep what measuring needs.

        Args:
            engine: holds the policy, which may go on training between measurements, and the reference.
            rollout: how answers are sampled.
            reward_source: scores them.
            tokenizer: of the models.
            generator: continues prompts with the policy.
            geometry: of the reference's embeddings.
            device: where the models are.
            rows: tokenised held-out prompts.
        """
        self._engine = engine
        self._rollout = rollout
        self._reward_source = reward_source
        self._tokenizer = tokenizer
        self._generator = generator
        self._sampling = Sampling(
            rollout.temperature, rollout.sampling_top_k, rollout.sampling_top_p, rollout.max_answer_seq_len
        )
        self._geometry = geometry
        self._device = device
        self._rows = rows

    def sample(self) -> list[Rollout]:
        """The present policy's answers to the held-out prompts; the random state is left as it was."""
        self._engine.actor.eval()
        self._generator.refresh()
        rollouts = []
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(EVALUATION_SEED)
            for prompts in self._batches():
                answers = self._generator.generate(prompts, self._sampling)
                rollouts.append(make_rollout(answers, prompts, self._tokenizer))
        return rollouts

    def measure(self, rollouts: Sequence[Rollout]) -> Measured:
        """Means under the present policy, whoever sampled the answers."""
        self._engine.actor.eval()
        rewards = torch.cat([self._reward_source.score(rollout).values[rollout.usable] for rollout in rollouts])
        lengths = torch.cat([rollout.response_mask.sum(dim=-1)[rollout.usable] for rollout in rollouts])
        kl, wasserstein, spread = [], [], []
        for policy, reference, tokens in self._positions(rollouts):
            kl.append(exact_kl(policy, reference))
            wasserstein.append(self._potentials(policy, reference, tokens).distance)
            spread.append(top_token_distance(policy, self._geometry.embeddings, count=TOP_TOKENS))
        return Measured(
            reward=_mean([rewards]),
            kl=_mean(kl),
            wasserstein=_mean(wasserstein),
            top_distance=_mean(spread),
            response_length=_mean([lengths]),
        )

    def trace(self, rollouts: Sequence[Rollout]) -> dict[str, Any]:
        """The first answer of readable length, token by token: texts, log-ratios, and both transport penalties."""
        rollout, row = _readable_answer(rollouts)
        policy, reference, tokens = self._logits(rollout, slice(row, row + 1))
        published = token_potentials(
            policy, reference, tokens, self._geometry, top_k=PUBLISHED_TOP_K,
            epsilon=PUBLISHED_EPSILON, max_iter=PUBLISHED_ROUNDS,
        )  # fmt: skip
        return {
            "prompt": rollout.prompts[row],
            "tokens": [self._tokenizer.decode([token]) for token in tokens.tolist()],
            "kl": (token_log_probs(policy, tokens) - token_log_probs(reference, tokens)).tolist(),
            "truncated": published.potential.tolist(),
            "debiased": self._potentials(policy, reference, tokens).potential.tolist(),
        }

    def _potentials(self, policy: Tensor, reference: Tensor, tokens: Tensor) -> TokenPotentials:
        """The common Wasserstein distance [N], for logits [N, V] and tokens [N]."""
        return token_potentials(
            policy, reference, tokens, self._geometry, top_k=MEASURE_TOP_K,
            epsilon=EPSILON_IN_NEAREST * self._geometry.nearest_distance, max_iter=MEASURE_ROUNDS,
            tol=MEASURE_TOLERANCE, transport="capped", debias=True,
        )  # fmt: skip

    def _positions(self, rollouts: Sequence[Rollout]) -> Iterator[Positions]:
        """All response positions, some at a time."""
        for rollout in rollouts:
            if rollout.usable.any():
                found = self._logits(rollout, slice(None))
                yield from zip(*(values.split(POSITIONS_PER_CHUNK) for values in found), strict=True)

    @torch.no_grad()
    def _logits(self, rollout: Rollout, part: slice) -> Positions:
        mask = rollout.response_mask[part]
        actor, found = self._engine.actor.module, []
        for model in (actor, self._engine.reference):
            logits = response_logits(
                model, type(actor), rollout.sequences[part], rollout.attention_mask[part], width=mask.shape[1]
            )
            found.append(real_logits(logits, self._engine.vocabulary)[mask])
        return found[0], found[1], rollout.responses[part][mask]

    def _batches(self) -> Iterator[PromptBatch]:
        size = self._rollout.per_device_generation_batch_size
        pad = int(self._tokenizer.pad_token_id)
        for start in range(0, len(self._rows), size):
            yield collate_prompts(self._rows[start : start + size], pad_token_id=pad).to(self._device)


def exact_kl(policy: Tensor, reference: Tensor) -> Tensor:
    """KL(policy || reference) of the softmaxes of two sets of logits [N, V], over all V: [N] float64, nats."""
    log_policy, log_reference = (logits.double().log_softmax(dim=-1) for logits in (policy, reference))
    return (log_policy.exp() * (log_policy - log_reference)).sum(dim=-1)


def top_token_distance(policy: Tensor, embeddings: Tensor, *, count: int) -> Tensor:
    """Mean Euclidean distance between all pairs of the `count` most likely tokens.

    Args:
        policy: logits [N, V].
        embeddings: [V, D].
        count: K, at least 2.
    Returns:
        [N] float64.
    """
    top = embeddings[policy.topk(count, dim=-1).indices].double()
    pairs = (top[:, :, None] - top[:, None]).norm(dim=-1)
    return pairs.sum(dim=(1, 2)) / (count * (count - 1))


def _readable_answer(rollouts: Sequence[Rollout]) -> tuple[Rollout, int]:
    """A rollout and a row of it: the first answer long enough to see something and short enough to be drawn."""
    lengths = [
        (rollout, row, int(length)) for rollout in rollouts for row, length in enumerate(rollout.response_mask.sum(-1))
    ]
    for rollout, row, length in lengths:
        if SHORTEST_SHOWN_ANSWER <= length <= LONGEST_SHOWN_ANSWER:
            return rollout, row
    return max(lengths, key=lambda found: found[2])[:2]


def _mean(parts: Sequence[Tensor]) -> float:
    return float(torch.cat(list(parts)).double().mean())

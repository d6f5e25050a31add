"""Random transport problems for the tests; every size is odd on purpose."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Problem(NamedTuple):
    """Two policies on one vocabulary: logits [N, V] float32, tokens [N] int64, embeddings [V, D] float32."""

    policy_logits: Tensor
    reference_logits: Tensor
    tokens: Tensor
    embeddings: Tensor


def random_problem(
    *,
    seed: int = 0,
    positions: int = 7,
    vocab_size: int = 83,
    width: int = 11,
    clusters: int = 0,
    spread: float = 0.3,
    scale: float = 1.0,
    sharpness: float = 2.0,
    noise: float = 1.0,
    uniform_tokens: bool = False,
) -> Problem:
    """Reference logits, a noisy copy for the policy, and embeddings that are Gaussian or gathered in clusters.

    Args:
        clusters: number of cluster centres; 0 draws every embedding by itself.
        spread: distance of a token from its centre, relative to the distance between centres.
        scale: typical norm of an embedding.
        sharpness: standard deviation of the reference logits.
        noise: standard deviation of policy minus reference logits.
        uniform_tokens: draw tokens uniformly, so that most lie outside every top-k, instead of from the policy.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    embeddings = normal(vocab_size, width)
    if clusters:
        members = torch.randint(clusters, (vocab_size,), generator=generator)
        embeddings = normal(clusters, width)[members] + spread * embeddings
    reference = sharpness * normal(positions, vocab_size)
    policy = reference + noise * normal(positions, vocab_size)
    if uniform_tokens:
        tokens = torch.randint(vocab_size, (positions,), generator=generator)
    else:
        tokens = torch.multinomial(policy.softmax(-1), 1, generator=generator)[:, 0]
    return Problem(policy, reference, tokens, embeddings * scale / width**0.5)

"""A plain reading of the published WPR scheme (arXiv 2602.01685), as the benchmarks' point of comparison.

Sparse [V, V] kernel on the symmetrised k1-nearest pairs, one support for the whole batch (the union of all positions'
top-k2 sets), dense softmaxes over the vocabulary, float32 throughout. Written from the paper's description, without
constants for one model's pad and end tokens.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

FLOOR = 1e-16


def nearest_pairs(
    embeddings: Tensor,
    *,
    num_neighbors: int,
    metric: Literal["l2", "cosine"] = "l2",
    block_size: int = 1024,
    num_rows: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Costs and index pairs of each token's nearest others, collected in Python lists one entry at a time.

    Args:
        embeddings: [V, D].
        num_neighbors: k1.
        metric: "l2" or "cosine".
        block_size: rows whose distances are computed at once.
        num_rows: only the first rows, to extrapolate the time of all from.
    Returns:
        costs [M] float32 and indices [2, M] int64, M = num_rows * k1.
    """
    rows, columns, costs = [], [], []
    total = len(embeddings) if num_rows is None else num_rows
    for start in range(0, total, block_size):
        block = embeddings[start : min(start + block_size, total)]
        nearest = _block_costs(block, embeddings, metric).topk(num_neighbors + 1, dim=1, largest=False)
        for row in range(len(block)):
            for rank in range(1, num_neighbors + 1):
                rows.append(start + row)
                columns.append(nearest.indices[row, rank].item())
                costs.append(nearest.values[row, rank].item())
    return torch.tensor(costs), torch.tensor([rows, columns])


def nearest_pairs_vectorized(
    embeddings: Tensor, *, num_neighbors: int, metric: Literal["l2", "cosine"] = "l2", block_size: int = 1024
) -> tuple[Tensor, Tensor]:
    """The same as `nearest_pairs` on embeddings [V, D], without its loops, so that a solve can be timed alone."""
    found = [
        _block_costs(block, embeddings, metric).topk(num_neighbors + 1, dim=1, largest=False)
        for block in embeddings.split(block_size)
    ]
    columns = torch.cat([block.indices[:, 1:] for block in found])
    rows = torch.arange(len(embeddings), device=columns.device)[:, None].expand_as(columns)
    costs = torch.cat([block.values[:, 1:] for block in found])
    return costs.flatten(), torch.stack([rows.flatten(), columns.flatten()])


def sparse_kernel(costs: Tensor, indices: Tensor, *, vocab_size: int, epsilon: float) -> Tensor:
    """Sparse [V, V] kernel: exp(-cost / epsilon), the larger of the two directions, 1 on the diagonal."""
    diagonal = torch.arange(vocab_size, device=indices.device)
    pairs = torch.cat([indices, indices.flip(0), torch.stack([diagonal, diagonal])], dim=1)
    values = torch.exp(-costs / epsilon)
    values = torch.cat([values, values, torch.ones(vocab_size, device=values.device)])
    keys, inverse = (pairs[0] * vocab_size + pairs[1]).unique(return_inverse=True)
    largest = torch.zeros(len(keys), device=values.device).scatter_reduce(0, inverse, values, reduce="amax")
    pairs = torch.stack([keys // vocab_size, keys % vocab_size])
    return torch.sparse_coo_tensor(pairs, largest, (vocab_size, vocab_size), is_coalesced=True, check_invariants=False)


def batch_potentials(
    policy_logits: Tensor,
    reference_logits: Tensor,
    tokens: Tensor,
    kernel: Tensor,
    *,
    top_k: int,
    epsilon: float,
    max_iter: int,
    tol: float = 0.0,
) -> Tensor:
    """Potentials [N] of the sampled tokens on one support shared by all positions.

    Args:
        policy_logits, reference_logits: [N, V].
        tokens: [N] int64.
        kernel: sparse [V, V] from `sparse_kernel`.
        top_k, epsilon, max_iter, tol: as the flags of the same names.
    """
    policy, reference = policy_logits.float().softmax(-1), reference_logits.float().softmax(-1)
    chosen = [policy.topk(top_k).indices.flatten(), reference.topk(top_k).indices.flatten(), tokens]
    support = torch.cat(chosen).unique()
    p, q = _with_dust(policy[:, support]), _with_dust(reference[:, support])
    local = _restricted(kernel, support)
    u, v = torch.ones_like(p), torch.ones_like(q)
    active = torch.arange(len(p), device=p.device)
    for _ in range(max_iter):
        old = u[active]
        u[active] = p[active] / (torch.sparse.mm(local, v[active].T).T + FLOOR)
        v[active] = q[active] / (torch.sparse.mm(local.t(), u[active].T).T + FLOOR)
        active = active[(u[active] - old).abs().amax(dim=1) > tol]
        if len(active) == 0:
            break
    position = torch.searchsorted(support, tokens)
    return (epsilon * torch.log(u + FLOOR)).gather(1, position[:, None])[:, 0]


def _block_costs(block: Tensor, embeddings: Tensor, metric: str) -> Tensor:
    """Costs [rows, V] from the rows of `block` to all tokens."""
    if metric == "cosine":
        return 1.0 - torch.nn.functional.normalize(block, dim=1) @ torch.nn.functional.normalize(embeddings, dim=1).T
    return torch.cdist(block, embeddings)


def _with_dust(masses: Tensor) -> Tensor:
    """[N, S] masses and, in one more column, what is missing to 1."""
    return torch.cat([masses, (1.0 - masses.sum(dim=1, keepdim=True)).clamp(min=0.0)], dim=1)


def _restricted(kernel: Tensor, support: Tensor) -> Tensor:
    """Sparse [S + 1, S + 1]: the kernel's entries with both ends in the support, re-indexed, and 1 for the dust bin."""
    position = torch.full((kernel.shape[0],), -1, dtype=torch.int64, device=support.device)
    position[support] = torch.arange(len(support), device=support.device)
    pairs = position[kernel.indices()]
    inside = (pairs >= 0).all(dim=0)
    dust = torch.full((2, 1), len(support), device=support.device)
    values = torch.cat([kernel.values()[inside], torch.ones(1, device=support.device)])
    size = (len(support) + 1, len(support) + 1)
    return torch.sparse_coo_tensor(torch.cat([pairs[:, inside], dust], dim=1), values, size, check_invariants=False)

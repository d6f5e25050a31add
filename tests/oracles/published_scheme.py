"""The published WPR scheme, read literally and written as loops in float64 (arXiv 2602.01685, Sec. 3 and Appendix).

Nothing here is fast or shared with the package: cost lists by sorting, a dense symmetrised kernel over the vocabulary,
one Python loop over the positions.
"""

from __future__ import annotations

import numpy as np

FLOOR = 1e-16


def softmax(logits: np.ndarray) -> np.ndarray:
    """[V] probabilities in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max())
    return shifted / shifted.sum()


def pairwise_costs(embeddings: np.ndarray, metric: str = "l2") -> np.ndarray:
    """[V, V] float64 costs from differences, one row at a time."""
    points = embeddings.astype(np.float64)
    if metric == "cosine":
        points = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-8)
        return np.maximum(1.0 - points @ points.T, 0.0)
    return np.stack([np.linalg.norm(points - point, axis=1) for point in points])


def kept_pairs(costs: np.ndarray, num_neighbors: int) -> np.ndarray:
    """[V, V] bool: j among the nearest others of i or the reverse; all tokens as near as the last one count."""
    count = len(costs)
    kept = np.eye(count, dtype=bool)
    for token in range(count):
        others = [other for other in range(count) if other != token]
        ranked = sorted(others, key=lambda other: costs[token, other])
        last = costs[token, ranked[min(num_neighbors, len(ranked)) - 1]]
        for other in others:
            if costs[token, other] <= last * (1 + 1e-9) + 1e-9:
                kept[token, other] = kept[other, token] = True
    return kept


def truncated_kernel(costs: np.ndarray, num_neighbors: int, epsilon: float) -> np.ndarray:
    """[V, V] exp(-cost / epsilon) on kept pairs, 1 on the diagonal, 0 elsewhere."""
    kernel = np.where(kept_pairs(costs, num_neighbors), np.exp(-costs / epsilon), 0.0)
    np.fill_diagonal(kernel, 1.0)
    return kernel


def position_support(policy: np.ndarray, reference: np.ndarray, token: int, top_k: int) -> list[int]:
    """Sorted ids of both distributions' `top_k` most probable tokens and the sampled token."""
    best = set(np.argsort(-policy)[:top_k]) | set(np.argsort(-reference)[:top_k]) | {token}
    return sorted(int(index) for index in best)


def solve_position(
    policy: np.ndarray,
    reference: np.ndarray,
    token: int,
    kernel: np.ndarray,
    support: list[int],
    *,
    epsilon: float,
    max_iter: int,
    tol: float = 0.0,
    normalize: bool = False,
) -> float:
    """Potential of `token` on one support with a tail bin that exchanges mass only with itself."""
    p = np.append(policy[support], max(0.0, 1.0 - policy[support].sum()))
    q = np.append(reference[support], max(0.0, 1.0 - reference[support].sum()))
    size = len(support) + 1
    local = np.zeros((size, size))
    local[:-1, :-1] = kernel[np.ix_(support, support)]
    local[-1, -1] = 1.0
    u, v = np.ones(size), np.ones(size)
    for _ in range(max_iter):
        previous = u
        u = p / (local @ v + FLOOR)
        v = q / (local.T @ u + FLOOR)
        if np.abs(u - previous).max() <= tol:
            break
    if not normalize:
        return float(epsilon * np.log(u[support.index(token)] + FLOOR))
    scaled = np.maximum(u / (u.max() if u.max() > 0 else 1.0), np.finfo(np.float32).tiny)
    potential = epsilon * np.log(scaled)
    return float(potential[support.index(token)] - potential.mean())


def potentials(
    policy_logits: np.ndarray,
    reference_logits: np.ndarray,
    tokens: np.ndarray,
    embeddings: np.ndarray,
    *,
    num_neighbors: int,
    top_k: int,
    epsilon: float,
    max_iter: int,
    tol: float = 0.0,
    metric: str = "l2",
    normalize: bool = False,
    batch_support: bool = False,
) -> np.ndarray:
    """[N] potentials for [N, V] logits, one position after the other."""
    kernel = truncated_kernel(pairwise_costs(embeddings, metric), num_neighbors, epsilon)
    rows = [(softmax(a), softmax(b), int(c)) for a, b, c in zip(policy_logits, reference_logits, tokens, strict=True)]
    supports = [position_support(*row, top_k) for row in rows]
    if batch_support:
        supports = [sorted(set().union(*supports))] * len(rows)
    settings = {"epsilon": epsilon, "max_iter": max_iter, "tol": tol, "normalize": normalize}
    pairs = zip(rows, supports, strict=True)
    return np.array([solve_position(*row, kernel, support, **settings) for row, support in pairs])


def isolated_token_potential(log_policy: float, log_reference: float, *, epsilon: float, max_iter: int) -> float:
    """Closed form of a token that exchanges mass with no other: epsilon (log p + (n - 1)(log p - log q))."""
    return epsilon * (log_policy + (max_iter - 1) * (log_policy - log_reference))

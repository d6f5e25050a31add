"""Entropic transport on explicit cost matrices, in float64 and run to convergence."""

from __future__ import annotations

import numpy as np


def capped_costs(costs: np.ndarray, kept: np.ndarray, far_cost: float) -> np.ndarray:
    """[V, V]: min(cost, far_cost) on kept pairs, far_cost elsewhere, 0 on the diagonal."""
    capped = np.where(kept, np.minimum(costs, far_cost), far_cost)
    np.fill_diagonal(capped, 0.0)
    return capped


def converged_sinkhorn(
    p: np.ndarray, q: np.ndarray, costs: np.ndarray, *, epsilon: float, tol: float = 1e-9, max_rounds: int = 1_000_000
) -> tuple[np.ndarray, np.ndarray, float]:
    """Potentials (phi, psi) with sum(q psi) = 0 and the value sum(p phi) + sum(q psi) of entropic transport.

    Plain Sinkhorn, as many rounds as it takes. Raises AssertionError where float64 has too small a range or the rounds
    do not suffice: an oracle must not return a wrong answer.
    """
    assert (p > 0).all() and (q > 0).all() and costs.max() / epsilon < 300
    kernel = np.exp(-costs / epsilon)
    u, v = np.ones_like(p), np.ones_like(q)
    error = np.inf
    for _ in range(max_rounds):
        u = p / (kernel @ v)
        reached = kernel.T @ u
        error = np.abs(v * reached - q).sum()
        if error <= tol:
            break
        v = q / reached
    assert error <= tol, f"the oracle did not converge: {error}"
    phi, psi = epsilon * np.log(u), epsilon * np.log(v)
    shift = q @ psi
    return phi + shift, psi - shift, float(p @ (phi + shift))


def sinkhorn_divergence(p: np.ndarray, q: np.ndarray, costs: np.ndarray, *, epsilon: float) -> tuple[np.ndarray, float]:
    """Debiased potential phi_pq - phi_pp with mean S(p, q) under p, and S(p, q) itself (Feydy et al. 2019)."""
    phi, _, between = converged_sinkhorn(p, q, costs, epsilon=epsilon)
    own, _, within_p = converged_sinkhorn(p, p, costs, epsilon=epsilon)
    _, _, within_q = converged_sinkhorn(q, q, costs, epsilon=epsilon)
    divergence = between - within_p / 2 - within_q / 2
    potential = phi - own  # gauges: both means are distances, so the mean here is between - within_p
    return potential - p @ potential + divergence, divergence

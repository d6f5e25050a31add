"""Entropic transport on explicit cost matrices, float64, log domain, run to convergence."""

from __future__ import annotations

import numpy as np
from scipy.special import logsumexp


def capped_costs(costs: np.ndarray, kept: np.ndarray, far_cost: float) -> np.ndarray:
    """[V, V]: min(cost, far_cost) on kept pairs, far_cost elsewhere, 0 on the diagonal."""
    capped = np.where(kept, np.minimum(costs, far_cost), far_cost)
    np.fill_diagonal(capped, 0.0)
    return capped


def converged_sinkhorn(
    p: np.ndarray, q: np.ndarray, costs: np.ndarray, *, epsilon: float, tol: float = 1e-10, max_rounds: int = 200_000
) -> tuple[np.ndarray, np.ndarray, float]:
    """Potentials (phi, psi) with sum(q psi) = 0 and the value sum(p phi) + sum(q psi) of entropic transport.

    Plain log-domain Sinkhorn with epsilon-scaling. Masses must be positive. Raises AssertionError when it does not
    converge: an oracle must not return a wrong answer.
    """
    assert (p > 0).all() and (q > 0).all()
    psi = np.zeros_like(q)
    temperature = max(epsilon, costs.max())
    while temperature > epsilon:
        psi, _, _ = _rounds(p, q, costs, psi, temperature, rounds=50, tol=tol)
        temperature = max(epsilon, temperature / 2)
    psi, phi, error = _rounds(p, q, costs, psi, epsilon, rounds=max_rounds, tol=tol)
    assert error <= tol, f"the oracle did not converge: {error}"
    shift = q @ psi
    return phi + shift, psi - shift, float(p @ (phi + shift))


def _rounds(
    p: np.ndarray, q: np.ndarray, costs: np.ndarray, psi: np.ndarray, epsilon: float, *, rounds: int, tol: float
) -> tuple[np.ndarray, np.ndarray, float]:
    exponent, psi = costs / epsilon, psi / epsilon
    error = np.inf
    for _ in range(rounds):
        phi = np.log(p) - logsumexp(psi[None] - exponent, axis=1)
        reached = logsumexp(phi[:, None] - exponent, axis=0)
        error = np.abs(np.exp(psi + reached) - q).sum()
        if error <= tol:
            break
        psi = np.log(q) - reached
    return psi * epsilon, phi * epsilon, error


def sinkhorn_divergence(
    p: np.ndarray, q: np.ndarray, costs: np.ndarray, *, epsilon: float
) -> tuple[np.ndarray, float]:
    """Debiased potential phi_pq - phi_pp with mean S(p, q) under p, and S(p, q) itself (Feydy et al. 2019)."""
    phi, _, between = converged_sinkhorn(p, q, costs, epsilon=epsilon)
    own, _, within_p = converged_sinkhorn(p, p, costs, epsilon=epsilon)
    _, _, within_q = converged_sinkhorn(q, q, costs, epsilon=epsilon)
    divergence = between - within_p / 2 - within_q / 2
    potential = phi - own  # gauges: both means are distances, so the mean here is between - within_p
    return potential - p @ potential + divergence, divergence

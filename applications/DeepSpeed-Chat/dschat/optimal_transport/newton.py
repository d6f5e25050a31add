"""Capped transport solved to its optimum: damped Newton steps on the semi-dual, with a Sinkhorn sweep in each.

Plain Sinkhorn needs hundreds of rounds here: where two policies are close, most mass stays where it is and the kernel
is close to a diagonal, which is its slowest case. The semi-dual is concave in one potential of S values, and its
Hessian is the Laplacian of a weighted graph on the bins (cf. Brauer, Clason, Lorenz and Wirth 2017, "A Sinkhorn-Newton
method for entropic optimal transport"), so that a Newton step is one S x S Cholesky factorization per position.

Inside this module potentials and costs are divided by epsilon. Legend: N positions, S bins of a support (tail
included), p policy masses (rows of a plan), q reference masses (columns).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dschat.optimal_transport.sinkhorn import symmetric_scaling

RESOLUTION = 1e-10  # marginal error at which a position counts as solved; two float64 solves then agree to rounding

_FIRST_EPSILON_DIVISOR = 8.0  # epsilon-scaling starts at far_cost / 8, where two or three rounds suffice
_SYMMETRIC_ROUNDS = 26  # 2 ** -26 is below what float32 logits can tell apart
_WARM_ROUNDS = 10  # enough for a start that is refined anyway
_STEP_FRACTIONS = (1.0, 0.5, 0.25, 0.0625)
_MAX_LOG_STEP = 50.0  # exp(50) keeps every product of a trial step inside float64
_GROUNDING = 1e-13  # relative; makes the Laplacian, singular along constants, positive definite
_TINY = 1e-300


class CappedSolution(NamedTuple):
    """Dual potentials of capped transport, in cost units.

    Attributes:
        row: [N, S] phi, -inf on bins without policy mass.
        column: [N, S] psi, -inf on bins without reference mass.
        self_row: [N, S] potential of the transport from p to itself, or None unless asked for.
        self_column: [N, S] potential of the transport from q to itself, or None unless asked for.
        marginal_error: [N] total absolute deviation of the plan's column sums from q; its row sums are exact.
        num_iterations: [N] int64 rounds used.
    """

    row: Tensor
    column: Tensor
    self_row: Tensor | None
    self_column: Tensor | None
    marginal_error: Tensor
    num_iterations: Tensor


class _Marginals(NamedTuple):
    """p [N, S], q [N, S] and log q [N, S], float64."""

    policy: Tensor
    reference: Tensor
    log_reference: Tensor

    def subset(self, chosen: Tensor) -> _Marginals:
        """Only the positions that the [N] bool mask `chosen` selects."""
        return _Marginals(*(values[chosen] for values in self))


def solve_capped(
    cost: Tensor,
    log_policy: Tensor,
    log_reference: Tensor,
    *,
    epsilon: float,
    far_cost: float,
    max_iter: int,
    tol: float,
    with_self_potentials: bool = False,
) -> CappedSolution:
    """Maximizes <phi, p> + <psi, q> over potentials whose plan exp((phi_i + psi_j - C_ij) / epsilon) has mass 1.

    Args:
        cost: [N, S, S] float64, symmetric, zero on the diagonal, at most `far_cost`.
        log_policy, log_reference: [N, S] float64 log-masses, -inf on bins that take no part.
        epsilon: entropic temperature, in the unit of `cost`.
        far_cost: the largest cost; epsilon-scaling starts from a fraction of it.
        max_iter: most rounds (a Newton step and a Sinkhorn sweep each), those of epsilon-scaling included.
        tol: a position stops when its marginal error is at most this (or RESOLUTION, if that is larger).
        with_self_potentials: also solve the two symmetric problems that the Sinkhorn divergence needs.
    """
    marginals = _Marginals(log_policy.exp(), log_reference.exp(), log_reference)
    masses = torch.stack([marginals.policy, marginals.reference], dim=2)
    own = symmetric_scaling(
        torch.exp(-cost / epsilon),
        masses if with_self_potentials else masses[..., 1:],
        rounds=_SYMMETRIC_ROUNDS if with_self_potentials else _WARM_ROUNDS,
    )
    exponent = cost / epsilon
    start = own[..., -1]
    temperatures = _epsilon_schedule(epsilon, far_cost=far_cost, max_rounds=max_iter // 2)
    if temperatures:
        scaled = _scaled_start(cost, marginals, temperatures) / epsilon
        # The margin keeps the exact answer at p = q, where nothing beats the symmetric start by more than rounding.
        better = _semi_dual(exponent, scaled, marginals) > _semi_dual(exponent, start, marginals) + RESOLUTION
        start = torch.where(better[:, None], scaled, start)
    psi, error, rounds = _iterate(exponent, start, marginals, max_rounds=max_iter - len(temperatures), tol=tol)
    phi = log_policy - torch.logsumexp(psi[:, None, :] - exponent, dim=2)
    return CappedSolution(
        row=epsilon * phi,
        column=epsilon * psi,
        self_row=epsilon * own[..., 0] if with_self_potentials else None,
        self_column=epsilon * own[..., -1] if with_self_potentials else None,
        marginal_error=error,
        num_iterations=rounds + len(temperatures),
    )


def _epsilon_schedule(epsilon: float, *, far_cost: float, max_rounds: int) -> list[float]:
    """Temperatures above epsilon, halving from far_cost / 8; the last `max_rounds` of them."""
    temperatures = []
    temperature = far_cost / _FIRST_EPSILON_DIVISOR
    while temperature > 1.4 * epsilon:
        temperatures.append(temperature)
        temperature /= 2
    return temperatures[len(temperatures) - max_rounds :] if len(temperatures) > max_rounds else temperatures


def _scaled_start(cost: Tensor, marginals: _Marginals, temperatures: list[float]) -> Tensor:
    """psi in cost units [N, S] after one round at each temperature, from the symmetric potential at the first."""
    kernel = torch.exp(-cost / temperatures[0])
    psi = symmetric_scaling(kernel, marginals.reference[..., None], rounds=_WARM_ROUNDS)[..., 0] * temperatures[0]
    for temperature in temperatures:
        exponent = cost / temperature
        psi = psi / temperature
        psi = temperature * _newton_round(_conditional(exponent, psi), psi, marginals)
    return psi


def _iterate(
    exponent: Tensor, start: Tensor, marginals: _Marginals, *, max_rounds: int, tol: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton rounds from `start` [N, S] until each position's marginal error is small: psi, error and rounds.

    Positions that have stopped leave the batch, so the loop asks once per round which are left: a question of
    microseconds, even across a bus, beside a round of milliseconds.
    """
    psi = start.clone()
    error = torch.zeros_like(psi[:, 0])
    rounds = torch.zeros_like(error, dtype=torch.int64)
    left = torch.arange(len(psi), device=psi.device)
    current = start
    for done in range(max_rounds + 1):
        conditional = _conditional(exponent, current)
        now = (_column_sums(conditional, marginals) - marginals.reference).abs().sum(dim=1)
        psi[left], error[left], rounds[left] = current, now, done
        active = now > max(tol, RESOLUTION)
        if done == max_rounds or not active.any():
            break
        if not active.all():
            left, exponent, marginals = left[active], exponent[active], marginals.subset(active)
            conditional, current = conditional[active], current[active]
        current = _newton_round(conditional, current, marginals)
    return psi, error, rounds


def _conditional(exponent: Tensor, psi: Tensor) -> Tensor:
    """[N, S, S] plan with each row divided by its mass: where a unit of p_i goes under the potential psi [N, S]."""
    return torch.softmax(psi[:, None, :] - exponent, dim=2)


def _column_sums(conditional: Tensor, marginals: _Marginals) -> Tensor:
    """[N, S] reference masses that the plan p_i * conditional_ij reaches."""
    return torch.bmm(marginals.policy[:, None, :], conditional)[:, 0]


def _semi_dual(exponent: Tensor, psi: Tensor, marginals: _Marginals) -> Tensor:
    """[N] dual value of psi, up to a constant of p, with phi chosen optimally."""
    gained = torch.where(marginals.reference > 0, marginals.reference * psi, 0.0).sum(dim=1)
    return gained - (marginals.policy * torch.logsumexp(psi[:, None, :] - exponent, dim=2)).sum(dim=1)


def _newton_round(conditional: Tensor, psi: Tensor, marginals: _Marginals) -> Tensor:
    """One damped Newton step and one Sinkhorn sweep: the next psi [N, S].

    Every trial step length is judged by the semi-dual, at the price of one matrix product. Length 0 (a bare Sinkhorn
    sweep) is among them, and log(1 + s) / s, s the spread of the step, which always improves on it because a
    log-sum-exp is self-concordant.
    """
    policy, reference, log_reference = marginals
    direction = _newton_direction(conditional, marginals)
    has_mass = reference > 0
    spread = torch.where(has_mass, direction, -torch.inf).amax(dim=1)
    spread = (spread - torch.where(has_mass, direction, torch.inf).amin(dim=1)).clamp_(min=_TINY)
    longest = (_MAX_LOG_STEP / spread).clamp_(max=1.0)
    trials = [torch.zeros_like(spread), (spread.log1p() / spread).clamp_(max=1.0)]
    lengths = torch.stack(trials + [longest * fraction for fraction in _STEP_FRACTIONS], dim=1)[:, None, :]
    steps = direction[:, :, None] * lengths
    row_sums = torch.bmm(conditional, steps.exp())
    gain = (reference[:, :, None] * steps - policy[:, :, None] * row_sums.log()).sum(dim=1)
    best = gain.argmax(dim=1)[:, None, None].expand(-1, policy.shape[1], 1)
    row_scaling = policy / row_sums.gather(2, best)[:, :, 0]
    reached = torch.bmm(row_scaling[:, None, :], conditional)[:, 0].clamp_(min=_TINY)
    return psi + log_reference - reached.log()


def _newton_direction(conditional: Tensor, marginals: _Marginals) -> Tensor:
    """Solves the Laplacian system of the semi-dual for a step of psi [N, S]; 0 where that is numerically impossible."""
    policy, reference, _ = marginals
    weights = torch.bmm((policy[:, :, None] * conditional).mT, conditional)
    diagonal = weights.diagonal(dim1=1, dim2=2)
    diagonal.zero_()  # the degree is a sum of off-diagonal terms: no cancellation
    degree = weights.sum(dim=2)
    scale = torch.where(degree > 0, degree, 1.0).rsqrt()
    laplacian = weights.mul_(-scale[:, :, None]).mul_(scale[:, None, :])
    diagonal.fill_(1.0 + _GROUNDING)
    residual = reference - _column_sums(conditional, marginals)
    residual = residual - reference * residual.sum(dim=1, keepdim=True)  # constants are not in the range
    factor, failed = torch.linalg.cholesky_ex(laplacian)
    step = torch.cholesky_solve((residual * scale)[:, :, None], factor)[:, :, 0] * scale
    usable = (failed == 0) & step.isfinite().all(dim=1)
    step = torch.where(usable[:, None] & (reference > 0), step, 0.0)
    return step - torch.where(reference > 0, (reference * step).sum(dim=1, keepdim=True), 0.0)

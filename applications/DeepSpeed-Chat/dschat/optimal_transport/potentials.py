"""Token potentials of Wasserstein Policy Regularization: two sets of logits in, one number per sampled token out.

Legend: N scored positions, V vocabulary, S support tokens (plus one tail bin), k2 tokens kept per distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from dschat import published
from dschat.optimal_transport.geometry import TokenGeometry
from dschat.optimal_transport.support import Support, SupportKind, build_support
from dschat.optimal_transport.transport import (
    SolvedPositions,
    joined,
    shared_kernel,
    solve_capped_transport,
    solve_truncated,
)

Transport = Literal["truncated", "capped"]

_CHUNK_ELEMENTS = 2**18  # float64 costs of a chunk of positions; 2 MiB, which a CPU keeps in its cache
_ACCELERATOR_CHUNK_ELEMENTS = 2**26


class TokenPotentials(NamedTuple):
    """What the regularizer and its metrics need to know about N positions.

    Attributes:
        potential: [N] float32, phi of the sampled token in cost units; the penalty is beta times this.
        distance: [N] float32, W_epsilon (with `debias` the Sinkhorn divergence); None for truncated transport, whose
            problem has no solution when the tails or components differ in mass.
        marginal_error: [N] float32, total absolute deviation of the plan's column sums from the reference's masses.
        policy_tail_mass: [N] float32, probability the policy gives to tokens outside the support.
        reference_tail_mass: [N] float32, the same for the reference.
        num_iterations: [N] int64, rounds until the position stopped.
        floored: [N] bool, True where the potential was set by a numerical floor; always False for capped transport.
        kept_neighbors: [N] float32, mean number of kept neighbours within the support per support token.
    """

    potential: Tensor
    distance: Tensor | None
    marginal_error: Tensor
    policy_tail_mass: Tensor
    reference_tail_mass: Tensor
    num_iterations: Tensor
    floored: Tensor
    kept_neighbors: Tensor


@torch.no_grad()
def token_potentials(
    policy_logits: Tensor,
    reference_logits: Tensor,
    tokens: Tensor,
    geometry: TokenGeometry,
    *,
    top_k: int = published.TOP_K,
    epsilon: float = published.EPSILON,
    max_iter: int = published.MAX_ITER,
    tol: float = published.TOL,
    transport: Transport = "truncated",
    support: SupportKind = "position",
    debias: bool = False,
    normalize: bool = False,
) -> TokenPotentials:
    """Potential of each sampled token in the transport from the policy's to the reference's next-token distribution.

    phi is the gradient of W_epsilon(policy, reference) with respect to the policy (WPR, arXiv 2602.01685, Sec. 3), so
    -beta * phi(token) is a token reward. No vocabulary-sized result is kept and nothing carries a gradient.

    Args:
        policy_logits: [N, V], any floating dtype, temperature 1; V is the geometry's vocabulary.
        reference_logits: [N, V], likewise.
        tokens: [N] int64, the sampled tokens.
        geometry: costs between the V tokens, on the logits' device.
        top_k: k2, tokens kept per distribution; more than V means V.
        epsilon: entropic temperature in cost units.
        max_iter: most rounds. For truncated transport the number of rounds is part of what is computed.
        tol: stop a position early; truncated: largest change of a scaling u, capped: marginal error. 0: never.
        transport: "truncated" forbids pairs that are not neighbours and ties the tail to itself, with the published
            floors (the published method); "capped" charges `geometry.far_cost` for them, which is well posed. Its
            potential is shifted so that its mean under the policy is `distance`.
        support: "position" gives each position its own support, "batch" the union of all (as published).
        debias: capped only: the Sinkhorn divergence, which is 0 at equal policies (Feydy et al. 2019).
        normalize: truncated only: divide u by its largest entry and centre the potential over the bins, as published.
    Raises:
        ValueError: a setting out of range, shapes or devices that do not fit, or NaN or inf in the logits.
    """
    _check_settings(top_k=top_k, epsilon=epsilon, max_iter=max_iter, tol=tol)
    _check_choices(transport, support, debias=debias, normalize=normalize)
    _check_tensors(policy_logits, reference_logits, tokens, geometry)
    with torch.autocast(policy_logits.device.type, enabled=False):
        top_k = min(top_k, geometry.vocab_size)
        problem = build_support(policy_logits, reference_logits, tokens, top_k=top_k, kind=support)
        per_position = _work_elements(problem, geometry)
        if transport == "capped":
            solve: Callable[[Support], SolvedPositions] = partial(
                solve_capped_transport, geometry=geometry, debias=debias, epsilon=epsilon, max_iter=max_iter, tol=tol
            )
        else:
            solve = partial(
                solve_truncated, geometry=geometry, normalize=normalize, epsilon=epsilon, max_iter=max_iter, tol=tol
            )
            if len(problem.ids) != len(tokens):
                solve = partial(solve, shared=shared_kernel(problem.ids[0], geometry, epsilon=epsilon))
                per_position = problem.policy.shape[1]
        solved = _solve_in_chunks(problem, solve, elements_per_position=per_position)
    return TokenPotentials(
        policy_tail_mass=problem.policy[:, -1].exp().float(),
        reference_tail_mass=problem.reference[:, -1].exp().float(),
        **solved._asdict(),
    )


def _work_elements(problem: Support, geometry: TokenGeometry) -> int:
    """How many numbers the solve of one position works on: its costs, or a share of its embedding rows if larger."""
    bins = problem.policy.shape[1]
    return bins * max(bins, geometry.embeddings.shape[1] // 8)  # the rows are read once, the costs in every round


def _solve_in_chunks(
    problem: Support, solve: Callable[[Support], SolvedPositions], *, elements_per_position: int
) -> SolvedPositions:
    """`solve` applied to a few positions at a time; they do not interact."""
    count = len(problem.token_bin)
    elements = _CHUNK_ELEMENTS if problem.ids.device.type == "cpu" else _ACCELERATOR_CHUNK_ELEMENTS
    positions = max(1, elements // elements_per_position)
    chunks = []
    for start in range(0, max(count, 1), positions):
        chunks.append(solve(problem.part(slice(start, start + positions))))
    return joined(chunks)


def _check_settings(*, top_k: int, epsilon: float, max_iter: int, tol: float) -> None:
    """Raises ValueError for a number out of range."""
    if top_k < 1:
        raise ValueError(f"top_k must be at least 1, got {top_k}")
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ValueError(f"epsilon must be positive and finite, got {epsilon}")
    if max_iter < 1:
        raise ValueError(f"max_iter must be at least 1, got {max_iter}")
    if not tol >= 0:
        raise ValueError(f"tol must be at least 0, got {tol}")


def _check_choices(transport: str, support: str, *, debias: bool, normalize: bool) -> None:
    """Raises ValueError for an unknown choice or for two that exclude each other."""
    if transport not in get_args(Transport):
        raise ValueError(f"transport must be 'truncated' or 'capped', got {transport!r}")
    if support not in get_args(SupportKind):
        raise ValueError(f"support must be 'position' or 'batch', got {support!r}")
    if debias and transport != "capped":
        raise ValueError("debias needs capped transport: truncated transport has no distance to debias")
    if normalize and transport != "truncated":
        raise ValueError("normalize needs truncated transport: capped potentials already have a fixed zero point")


def _check_tensors(policy_logits: Tensor, reference_logits: Tensor, tokens: Tensor, geometry: TokenGeometry) -> None:
    """Raises ValueError for shapes, dtypes or devices that do not fit together."""
    expected = (len(tokens), geometry.vocab_size)
    for name, logits in (("policy", policy_logits), ("reference", reference_logits)):
        if tuple(logits.shape) != expected:
            raise ValueError(
                f"{name} logits must have shape [N, V] = {list(expected)}, got {list(logits.shape)}; "
                "slice padded vocabulary columns off before the call"
            )
        if not logits.is_floating_point():
            raise ValueError(f"{name} logits must be floating point, got {logits.dtype}; pass the model's raw logits")
    devices = {policy_logits.device, reference_logits.device, tokens.device, geometry.embeddings.device}
    if len(devices) > 1:
        raise ValueError(f"logits, tokens and geometry must share one device, got {sorted(map(str, devices))}")
    if tokens.ndim != 1 or tokens.dtype != torch.int64:
        raise ValueError(f"tokens must be [N] int64, got {list(tokens.shape)} {tokens.dtype}")

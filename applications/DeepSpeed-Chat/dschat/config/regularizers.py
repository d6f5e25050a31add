"""Settings of what holds the policy near the reference. The type of the section chooses the regularizer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from dschat import published
from dschat.config.flag import Section, flag
from dschat.errors import UserError

DivergenceKind = Literal["rkl", "fkl", "js", "alpha", "tv", "chi"]
KLEstimator = Literal["k1", "k2", "k3"]


class RegularizerConfig(Section):
    """Settings of one regularizer; the base of all, from which a new one starts."""

    group: ClassVar[str] = "regularizer"

    @property
    def default_clip(self) -> float | None:
        """Bound of coefficient times penalty where --penalty_clip is left out; None, the default, for none."""
        return None


@dataclass(frozen=True)
class DivergenceConfig(RegularizerConfig):
    """No regularizer, KL, or an f-divergence between the policy and the reference."""

    f_div: Literal["none", DivergenceKind] = flag(
        "rkl", help="Divergence that is the penalty. rkl: KL(policy || reference), the usual one. none: no penalty."
    )
    f_div_alpha: float = flag(
        0.5, above=0, below=1, needs="f_div alpha", help="Order of the alpha-divergence, between 0 and 1."
    )
    f_div_low_var: bool = flag(False, help="Use the estimate of lower variance that rkl and fkl have.")
    kl_estimator: KLEstimator = flag(
        "k1",
        needs="f_div rkl",
        help="Estimate of KL from the log-ratio r. k1: r. k2: r^2/2, biased. k3: r + exp(-r) - 1, as --f_div_low_var.",
    )

    @property
    def default_clip(self) -> float | None:
        """2.5 as published for the divergences whose tails are exponential in the log-ratio, else None."""
        return None if self.f_div in ("none", "rkl") else 2.5

    def check(self) -> None:
        """Raise UserError for an estimate that the divergence does not have."""
        if self.f_div_low_var and self.f_div not in ("rkl", "fkl"):
            raise UserError(f"--f_div_low_var works with --f_div rkl or fkl, got {self.f_div}; drop it")
        if self.f_div_low_var and self.kl_estimator != "k1":
            raise UserError("--f_div_low_var is --kl_estimator k3; pass one of the two")


@dataclass(frozen=True)
class WassersteinConfig(RegularizerConfig):
    """Wasserstein Policy Regularization (arXiv 2602.01685)."""

    cost_dim: int = flag(
        published.NUM_NEIGHBORS,
        at_least=1,
        advice=f"the paper's commands use {published.NUM_NEIGHBORS}",
        help="Nearest other tokens that are the neighbours of a token: probability moves to them at their distance.",
    )
    top_k: int = flag(
        published.TOP_K,
        at_least=1,
        advice=f"the paper's commands use {published.TOP_K}",
        help="Most likely tokens kept of each of the two distributions.",
    )
    epsilon: float = flag(
        published.EPSILON,
        above=0,
        advice=f"the paper's commands use {published.EPSILON}",
        help="Entropic temperature: the larger, the more the transport is blurred; see --epsilon_unit.",
    )
    epsilon_unit: Literal["cost", "nearest"] = flag(
        "cost",
        help="Unit of --epsilon. cost: distance of embeddings, as published. nearest: the median distance from a token "
        "to its nearest other token.",
    )
    max_iter: int = flag(
        published.MAX_ITER,
        at_least=1,
        advice=f"the paper's commands use {published.MAX_ITER}",
        help="Sinkhorn rounds at most.",
    )
    tol: float = flag(
        published.TOL,
        at_least=0,
        help="A position stops early below this change of a scaling (truncated) or error of the plan (capped).",
    )
    cost_type: Literal["L2", "cos"] = flag("L2", help="Token distance: Euclidean, or one minus cosine.")
    block_size: int = flag(
        published.BLOCK_SIZE,
        at_least=1,
        advice=f"the paper's commands use {published.BLOCK_SIZE}",
        help="Tokens whose distances are computed at once while the geometry is built; fewer need less memory.",
    )
    transport: Literal["truncated", "capped"] = flag(
        "truncated",
        help="Tokens that are not neighbours. truncated: exchange no probability, as published. capped: exchange it at "
        "--far_cost.",
    )
    support: Literal["position", "batch"] = flag(
        "position", help="Tokens kept per position (the paper) or per scored batch (the published code)."
    )
    far_cost: float | None = flag(
        None,
        above=0,
        advice="leave it out for the median distance",
        help="Cost between tokens that are not neighbours, with --transport capped; default: the median distance of "
        "random tokens.",
    )
    debias: bool = flag(
        False, help="Sinkhorn divergence, which is zero where the policy is the reference; with --transport capped."
    )
    normalize: bool = flag(
        False, help="Rescale and centre the potential as the published code can; with --transport truncated."
    )
    gaussian_perturb: float = flag(
        0.0,
        at_least=0,
        below=1,
        help="Share of seeded Gaussian noise mixed into the embeddings before distances are taken.",
    )

    def check(self) -> None:
        """Raise UserError for an option that the kind of transport does not have."""
        if self.debias and self.transport != "capped":
            raise UserError("--debias needs --transport capped: the truncated problem has no solution to debias")
        if self.normalize and self.transport != "truncated":
            raise UserError("--normalize belongs to --transport truncated; the capped potential has a gauge of its own")
        if self.far_cost is not None and self.transport != "capped":
            raise UserError("--far_cost needs --transport capped; truncated transport moves nothing between far tokens")

"""Policy regularizers, chosen by the type of their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dschat.config.regularizers import DivergenceConfig, RegularizerConfig, WassersteinConfig
from dschat.optimal_transport import TokenGeometry
from dschat.optimal_transport.geometry import Metric
from dschat.rlhf.regularizers.base import Penalty, Regularizer, ResponsePositions
from dschat.rlhf.regularizers.f_divergence import FDivergenceRegularizer
from dschat.rlhf.regularizers.kl import KLRegularizer
from dschat.rlhf.regularizers.none import NoRegularizer
from dschat.rlhf.regularizers.wasserstein import WassersteinRegularizer

__all__ = ["Penalty", "Regularizer", "ResponsePositions", "build_regularizer"]


def build_regularizer(
    config: RegularizerConfig,
    *,
    reference_embeddings: Callable[[], Tensor],
    seed: int,
    gaps: Sequence[int] = (),
) -> Regularizer:
    """The regularizer that a section of settings describes.

    Args:
        config: its type and fields choose the variant.
        reference_embeddings: gives the reference's input embeddings [V, D], V the highest token id plus one; called
            where needed.
        seed: of the noise that --gaussian_perturb mixes in.
        gaps: ids below V that no token has.
    """
    match config:
        case DivergenceConfig(f_div=kind):
            if kind == "none":
                return NoRegularizer()
            if kind == "rkl":
                return KLRegularizer("k3" if config.f_div_low_var else config.kl_estimator)
            return FDivergenceRegularizer(kind, config.f_div_alpha, config.f_div_low_var)
        case WassersteinConfig():
            embeddings = _perturbed(reference_embeddings().float(), config.gaussian_perturb, seed)
            metrics: dict[str, Metric] = {"L2": "l2", "cos": "cosine"}
            geometry = TokenGeometry.from_embeddings(
                embeddings,
                num_neighbors=config.cost_dim,
                metric=metrics[config.cost_type],
                far_cost=config.far_cost,
                block_size=config.block_size,
                gaps=gaps,
            )
            return WassersteinRegularizer(config, geometry)
    raise TypeError(f"{type(config).__name__} has no arm in build_regularizer")


def _perturbed(embeddings: Tensor, share: float, seed: int) -> Tensor:
    """(1 - share) * embeddings + share * standard normal noise, the same on every rank and device; [V, D]."""
    if share == 0:
        return embeddings
    noise = torch.randn(embeddings.shape, generator=torch.Generator().manual_seed(seed))
    return (1 - share) * embeddings + share * noise.to(embeddings.device)

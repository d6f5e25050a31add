"""Wasserstein Policy Regularization (Na et al., arXiv 2602.01685)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from dschat.config.regularizers import WassersteinConfig
from dschat.optimal_transport import TokenGeometry, TokenPotentials, token_potentials
from dschat.optimal_transport.geometry import BLURRED_KERNEL, INACTIVE_KERNEL
from dschat.rlhf.regularizers.base import Penalty, ResponsePositions

ADVICE = {
    "truncated": "The flags: --epsilon_unit nearest --epsilon 0.2, or --transport capped.",
    "capped": "The flags: --epsilon_unit nearest --epsilon 0.2, or a larger --max_iter.",
}
"""What to pass where epsilon does not suit the distances."""


@dataclass(frozen=True)
class WassersteinRegularizer:
    """The dual variable, at the sampled token, of entropic optimal transport between policy and reference."""

    config: WassersteinConfig
    geometry: TokenGeometry
    """Distances between the reference's token embeddings."""

    @property
    def epsilon(self) -> float:
        """Entropic temperature in cost units, whatever the unit of --epsilon."""
        unit = self.geometry.nearest_distance if self.config.epsilon_unit == "nearest" else 1.0
        return self.config.epsilon * unit

    def penalty(self, positions: ResponsePositions) -> Penalty:
        """Potentials [N], in the units of the embedding distance."""
        result = token_potentials(
            positions.policy_logits,
            positions.reference_logits,
            positions.tokens,
            self.geometry,
            top_k=self.config.top_k,
            epsilon=self.epsilon,
            max_iter=self.config.max_iter,
            tol=self.config.tol,
            transport=self.config.transport,
            support=self.config.support,
            debias=self.config.debias,
            normalize=self.config.normalize,
        )
        metrics = {
            "wasserstein_potential": result.potential,
            "policy_tail_mass": result.policy_tail_mass,
            "reference_tail_mass": result.reference_tail_mass,
            "marginal_error": result.marginal_error,
            "sinkhorn_rounds": result.num_iterations.float(),
            "unconverged_share": self._unconverged(result).float(),
            "floored_share": result.floored.float(),
            "kept_neighbors": result.kept_neighbors.float(),
        }
        if result.distance is not None:
            metrics["wasserstein_distance"] = result.distance
        return Penalty(result.potential, metrics)

    def _unconverged(self, result: TokenPotentials) -> Tensor:
        """[N] bool, where --tol was not reached within --max_iter rounds."""
        used_up = result.num_iterations >= self.config.max_iter
        return used_up & (result.marginal_error > self.config.tol) if self.config.transport == "capped" else used_up

    def describe(self) -> str:
        """The geometry, epsilon in both units, which regime this is, and the flags that lead out of an extreme one."""
        report = f"regularizer: {self.geometry.describe(self.epsilon, transport=self.config.transport)}"
        sees_meaning = INACTIVE_KERNEL <= self.geometry.kernel_at_nearest(self.epsilon) <= BLURRED_KERNEL
        return report if sees_meaning else f"{report}\n  {ADVICE[self.config.transport]}"

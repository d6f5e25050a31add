"""Token-level optimal transport between two next-token distributions (WPR, arXiv 2602.01685). Needs torch only."""

from dschat.optimal_transport.geometry import TokenGeometry
from dschat.optimal_transport.potentials import TokenPotentials, token_potentials

__all__ = ["TokenGeometry", "TokenPotentials", "token_potentials"]

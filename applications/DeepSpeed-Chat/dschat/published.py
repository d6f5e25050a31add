"""Settings of the published Wasserstein experiments (arXiv 2602.01685): defaults of flags and of library functions."""

from __future__ import annotations

NUM_NEIGHBORS = 512
"""k1, tokens to which a token may move at its distance."""
TOP_K = 128
"""k2, tokens kept of each distribution."""
EPSILON = 0.01
"""Entropic temperature, in cost units."""
MAX_ITER = 10
"""Sinkhorn rounds."""
TOL = 1e-6
"""Change below which a position stops before."""
BLOCK_SIZE = 1024
"""Rows of distances that are held at once."""

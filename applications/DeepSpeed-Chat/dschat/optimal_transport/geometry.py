"""The ground cost between tokens, without a cost matrix.

Two tokens are neighbours when either is among the other's `k1` nearest. With `radius[i]`, the distance from token i to
its k1-th nearest other token, that is `cost(i, j) <= radius[i] or cost(i, j) <= radius[j]`; so an embedding table and
one number per token hold everything that the published sparse [V, V] matrix holds.

Legend: V vocabulary, D embedding width, N rows of a block, S tokens per row.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dschat import published
from dschat.optimal_transport.selection import largest_and_last

logger = logging.getLogger(__name__)

Metric = Literal["l2", "cosine"]

INACTIVE_KERNEL = 1e-6  # below this, neighbours are invisible beside the token itself
BLURRED_KERNEL = 0.9  # above this, a neighbour is as good as the token itself

_RADIUS_SLACK = 1e-6  # relative; the k1-th neighbour itself must not fall out by rounding
_SELF_SLACK = 1e-6  # absolute; what rounding leaves of the cost between a token and itself
_COSINE_NORM_FLOOR = 1e-8
_FAR_COST_PAIRS = 16_384
_FAR_COST_SEED = 0
_BLOCK_ELEMENTS = 2**23  # entries of a block of closenesses; on a CPU it should stay in the cache
_ACCELERATOR_BLOCK_ELEMENTS = 2**27
_MIN_BLOCK_ROWS = 64  # fewer would read the whole table too often for too little arithmetic
_CANCELLATION = 1e-2  # squared distance over squared norm below which float32 loses its digits


@dataclass(frozen=True, eq=False)
class TokenGeometry:
    """Distances between the tokens of one vocabulary, in the embedding space of the reference model.

    Attributes:
        embeddings: [V, D] float32; for `metric="cosine"` the rows are divided by their norm.
        radius: [V] float32, cost from each token to its `num_neighbors`-th nearest other token; 0 in a gap.
        metric: "l2" (Euclidean distance, not squared) or "cosine" (1 - cosine similarity).
        num_neighbors: k1, at most the number of tokens - 1.
        far_cost: cost that capped transport charges for a pair of tokens that are not neighbours.
        nearest_distance: median over tokens of the cost to the nearest other token.
        median_radius: median of `radius` over tokens.
        num_gaps: rows of the table that no token has.
    """

    embeddings: Tensor
    radius: Tensor
    metric: Metric
    num_neighbors: int
    far_cost: float
    nearest_distance: float
    median_radius: float
    num_gaps: int = 0

    @classmethod
    @torch.no_grad()
    def from_embeddings(
        cls,
        embeddings: Tensor,
        *,
        num_neighbors: int = published.NUM_NEIGHBORS,
        metric: Metric = "l2",
        far_cost: float | None = None,
        block_size: int = published.BLOCK_SIZE,
        gaps: Sequence[int] = (),
    ) -> TokenGeometry:
        """Measures every token's neighbourhood (WPR, arXiv 2602.01685, nearest-k1 truncation).

        Args:
            embeddings: [V, D], any floating dtype, one row per token id (no padding rows). A float32 table without
                gaps is kept by reference, not copied.
            num_neighbors: k1; from V - 1 on every pair counts as neighbours.
            metric: "l2" or "cosine".
            far_cost: cost of a pair that is not kept; None takes the median cost of random pairs (fixed seed).
            block_size: most rows whose distances to all V tokens are held at once.
            gaps: ids that no token has. They keep their rows, so that ids stay what they are, but are nobody's
                neighbour and enter no statistic; in transport they carry no mass, as no logits reach them.
        Raises:
            ValueError: fewer than two tokens, NaN or inf in a row, or a setting out of range.
        """
        _check_settings(num_neighbors=num_neighbors, metric=metric, far_cost=far_cost, block_size=block_size)
        points = _as_points(embeddings, metric, gaps)
        has_token = torch.ones(len(points), dtype=torch.bool, device=points.device)
        has_token[list(gaps)] = False
        tokens = points[has_token] if gaps else points
        neighbors = min(num_neighbors, len(tokens) - 1)
        with _exact_float32_matmul(), torch.autocast(points.device.type, enabled=False):
            nearest, radius = _neighbourhoods(tokens, metric, num_neighbors=neighbors, block_size=block_size)
        return cls(
            embeddings=points,
            radius=radius.new_zeros(len(points)).masked_scatter(has_token, radius),
            metric=metric,
            num_neighbors=neighbors,
            far_cost=_median_pair_cost(tokens, metric) if far_cost is None else float(far_cost),
            nearest_distance=nearest.median().item(),
            median_radius=radius.median().item(),
            num_gaps=len(gaps),
        )

    @property
    def vocab_size(self) -> int:
        """V, the number of tokens and gaps."""
        return self.embeddings.shape[0]

    def to(self, device: torch.device | str) -> TokenGeometry:
        """The same geometry with its tensors on `device`."""
        return replace(self, embeddings=self.embeddings.to(device), radius=self.radius.to(device))

    def costs(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Costs between the tokens of each row, and which pairs are neighbours.

        The inner products are taken in float64: in float32 the distance of two near-duplicate tokens would be noise of
        about 5e-4 of their norm, which at epsilon = 0.01 already shifts the kernel by several percent.

        Args:
            ids: [N, S] int64 token ids.
        Returns:
            cost [N, S, S] float64, and kept [N, S, S] bool, True for neighbours and for a token with itself.
        """
        points = F.embedding(ids, self.embeddings).double()
        gram = torch.bmm(points, points.mT)
        squares = gram.diagonal(dim1=1, dim2=2).clone()
        cost = _costs_from_products(gram, squares, squares, self.metric)
        reach = self._reach(ids)
        return cost, (cost <= reach[:, :, None]) | (cost <= reach[:, None, :])

    def costs_between(self, rows: Tensor, columns: Tensor) -> tuple[Tensor, Tensor]:
        """As `costs`, [A, B], between the tokens of `rows` [A] and those of `columns` [B]."""
        left, right = (F.embedding(ids, self.embeddings).double() for ids in (rows, columns))
        left_squares, right_squares = (points.square().sum(dim=1)[None] for points in (left, right))
        cost = _costs_from_products((left @ right.T)[None], left_squares, right_squares, self.metric)[0]
        return cost, (cost <= self._reach(rows)[:, None]) | (cost <= self._reach(columns)[None, :])

    def _reach(self, ids: Tensor) -> Tensor:
        """The radius of each token in float64, with room for the rounding of costs."""
        return self.radius[ids].double().mul_(1 + _RADIUS_SLACK).add_(_SELF_SLACK)

    def kernel_at_nearest(self, epsilon: float) -> float:
        """exp(-nearest_distance / epsilon), in [0, 1]: how much a typical nearest neighbour weighs beside the token."""
        return math.exp(-self.nearest_distance / epsilon)

    def is_semantic_term_inactive(self, epsilon: float) -> bool:
        """True when at this epsilon (in cost units) truncated transport cannot see even the nearest neighbours."""
        return self.kernel_at_nearest(epsilon) < INACTIVE_KERNEL

    def describe(self, epsilon: float, *, transport: Literal["truncated", "capped"] = "truncated") -> str:
        """The start-up report in plain words: sizes, distances, epsilon in both units, and what they mean together.

        Args:
            epsilon: entropic temperature in cost units.
            transport: how pairs that are not neighbours are treated, see `token_potentials`.
        """
        nearest = self.nearest_distance
        multiple = f"{epsilon / nearest:.3g}" if nearest > 0 else "inf"
        lines = [
            f"Wasserstein geometry: V = {self.vocab_size - self.num_gaps:,} tokens, D = {self.embeddings.shape[1]:,}, "
            f"k1 = {self.num_neighbors} neighbours, metric {self.metric}, transport {transport}",
            f"  median cost to the nearest neighbour {nearest:.4g}, to the k1-th neighbour {self.median_radius:.4g}, "
            f"between unrelated tokens (far_cost) {self.far_cost:.4g}",
            f"  epsilon = {epsilon:.4g} in cost units = {multiple} nearest-neighbour distances; "
            f"kernel at the nearest neighbour {self.kernel_at_nearest(epsilon):.3g}",
            f"  {_regime(self, epsilon, transport)}",
        ]
        return "\n".join(lines)


def _regime(geometry: TokenGeometry, epsilon: float, transport: str) -> str:
    """One or two sentences on what the penalty measures at this epsilon."""
    kernel = geometry.kernel_at_nearest(epsilon)
    if kernel < INACTIVE_KERNEL and transport == "truncated":
        return (
            "WARNING: the semantic term is inactive at this epsilon on this model. Even nearest neighbours exchange no "
            "mass, so the penalty is a scaled log-ratio of the two policies that grows with every round. To "
            f"change that, raise epsilon (about {geometry.nearest_distance / 5:.2g} makes neighbours count), or use "
            "capped transport."
        )
    if kernel < INACTIVE_KERNEL:
        return (
            "WARNING: epsilon is very small beside the distances. Capped transport still charges by meaning, but it is "
            "close to unregularized transport and converges slowly: watch marginal_error, allow more rounds, or raise "
            "epsilon."
        )
    if kernel > BLURRED_KERNEL:
        return (
            "Blurred regime: a nearest neighbour counts almost like the token itself, so the penalty hardly separates "
            "close tokens. Lower epsilon."
        )
    return "Semantic regime: moving probability to a neighbouring token costs less than moving it to an unrelated one."


def _check_settings(*, num_neighbors: int, metric: str, far_cost: float | None, block_size: int) -> None:
    """Raises ValueError for a setting out of range."""
    if num_neighbors < 1:
        raise ValueError(f"num_neighbors must be at least 1, got {num_neighbors}")
    if block_size < 1:
        raise ValueError(f"block_size must be at least 1, got {block_size}")
    if metric not in get_args(Metric):
        raise ValueError(f"metric must be 'l2' or 'cosine', got {metric!r}")
    if far_cost is not None and not (math.isfinite(far_cost) and far_cost > 0):
        raise ValueError(f"far_cost must be positive and finite, got {far_cost}; None has it measured")


def _as_points(embeddings: Tensor, metric: Metric, gaps: Sequence[int]) -> Tensor:
    """[V, D] float32 rows whose pairwise costs are wanted, 0 in gaps; ValueError for a table that cannot be used."""
    if embeddings.ndim != 2 or embeddings.shape[0] - len(gaps) < 2:
        raise ValueError(f"embeddings must have shape [V, D] with at least 2 tokens, got {list(embeddings.shape)}")
    points = embeddings.detach().float()
    if gaps:
        points = points.index_fill(0, torch.tensor(list(gaps), device=points.device), 0.0)
    bad = ~points.isfinite().all(dim=1)
    if bad.any():
        raise ValueError(
            f"the reference model's input embedding of token {int(bad.nonzero()[0])} holds NaN or inf "
            f"({int(bad.sum())} such tokens); check the checkpoint"
        )
    if metric == "cosine":
        points = points / points.norm(dim=1, keepdim=True).clamp_min(_COSINE_NORM_FLOOR)
    return points


def _costs_from_products(products: Tensor, left: Tensor, right: Tensor, metric: Metric) -> Tensor:
    """Costs [N, A, B] from inner products of points, which it overwrites, and their squared norms [N, A], [N, B]."""
    if metric == "cosine":
        return products.neg_().add_(1.0).clamp_(min=0.0)
    return products.mul_(-2.0).add_(left[:, :, None]).add_(right[:, None, :]).clamp_(min=0.0).sqrt_()


def _paired(left: Tensor, right: Tensor, metric: Metric) -> Tensor:
    """Costs [N] float32 between matching rows of two [N, D] tables."""
    left, right = left.double(), right.double()
    if metric == "cosine":
        return (1.0 - (left * right).sum(dim=-1)).clamp_(min=0.0).float()
    return (left - right).norm(dim=-1).float()


def _neighbourhoods(points: Tensor, metric: Metric, *, num_neighbors: int, block_size: int) -> tuple[Tensor, Tensor]:
    """Cost to the nearest and to the `num_neighbors`-th nearest other point: two [V] float32 tensors for [V, D]."""
    count = len(points)
    elements = _BLOCK_ELEMENTS if points.device.type == "cpu" else _ACCELERATOR_BLOCK_ELEMENTS
    rows_per_block = min(block_size, max(_MIN_BLOCK_ROWS, elements // count))
    if metric == "l2":
        points = points - points.mean(dim=0)  # small norms leave the identity |x|^2 - 2 x.y + |y|^2 its digits
    squares = points.square().sum(dim=1) if metric == "l2" else torch.zeros_like(points[:, 0])
    halves = squares / 2
    nearest, radius = torch.empty_like(squares), torch.empty_like(squares)
    scratch = points.new_empty(min(rows_per_block, count), count)
    for start in range(0, count, rows_per_block):
        rows = torch.arange(start, min(start + rows_per_block, count), device=points.device)
        # The row's own norm changes no order: x.y - |y|^2 / 2 ranks like the distance from x to y.
        closeness = torch.mm(points[rows], points.T, out=scratch[: len(rows)]).sub_(halves)
        closest, last, closest_value = _nearest_and_last(closeness, rows, num_neighbors)
        if metric == "l2":
            doubtful = squares[rows] - 2 * closest_value < _CANCELLATION * squares[rows]
            if doubtful.any():
                ranked = _closeness_in_float64(points, rows[doubtful])
                closest[doubtful], last[doubtful], _ = _nearest_and_last(ranked, rows[doubtful], num_neighbors)
        nearest[rows] = _paired(points[rows], points[closest], metric)
        radius[rows] = _paired(points[rows], points[last], metric)
    return nearest, radius


def _nearest_and_last(closeness: Tensor, rows: Tensor, num_neighbors: int) -> tuple[Tensor, Tensor, Tensor]:
    """Columns [N] of the closest and of the `num_neighbors`-th closest other token, and the closest one's value [N].

    Overwrites the entry of each row's own token, excluded by its index: with duplicates it need not be the first.
    """
    closeness.scatter_(1, rows[:, None], -math.inf)
    closest, last = largest_and_last(closeness, num_neighbors)
    return closest, last, closeness.gather(1, closest[:, None])[:, 0]


def _closeness_in_float64(points: Tensor, rows: Tensor) -> Tensor:
    """x.y - |y|^2 / 2, [N, V] float64, for rows with near-duplicates, whose order float32 cannot tell."""
    queries = points[rows].double()
    blocks = []
    for block in points.split(max(1, _BLOCK_ELEMENTS // points.shape[1])):
        wide = block.double()
        blocks.append(torch.mm(queries, wide.T).sub_(wide.square().sum(dim=1) / 2))
    return torch.cat(blocks, dim=1)


def _median_pair_cost(points: Tensor, metric: Metric) -> float:
    """Median cost of all pairs of [V, D] points, or of a fixed random sample of pairs where there are many."""
    count = len(points)
    if count * (count - 1) // 2 <= _FAR_COST_PAIRS:
        left, right = torch.triu_indices(count, count, offset=1)
    else:
        generator = torch.Generator().manual_seed(_FAR_COST_SEED)
        left = torch.randint(count, (_FAR_COST_PAIRS,), generator=generator)
        right = (left + torch.randint(1, count, (_FAR_COST_PAIRS,), generator=generator)) % count
    left, right = left.to(points.device), right.to(points.device)
    per_block = max(1, _BLOCK_ELEMENTS // points.shape[1])
    pairs = zip(left.split(per_block), right.split(per_block), strict=True)
    costs = [_paired(points[a], points[b], metric) for a, b in pairs]
    return torch.cat(costs).median().item()


@contextmanager
def _exact_float32_matmul() -> Iterator[None]:
    """Switches TF32 and bfloat16 shortcuts of float32 products off, whatever the training run has chosen."""
    backends: list[Any] = [torch.backends.cuda.matmul, torch.backends.mkldnn.matmul]  # type: ignore[attr-defined]
    if not all(hasattr(backend, "fp32_precision") for backend in backends):  # torch before 2.9
        chosen = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(chosen)
        return
    saved = [backend.fp32_precision for backend in backends]
    try:
        for backend in backends:
            backend.fp32_precision = "ieee"
        yield
    finally:
        for backend, precision in zip(backends, saved, strict=True):
            backend.fp32_precision = precision

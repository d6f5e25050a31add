"""Times token potentials against a floor, the published scheme, POT, geomloss and dense transport, on one input.

    python scripts/bench/potentials.py
    python scripts/bench/potentials.py --vocab_sizes 8000 32000 128000 --positions 64 256 2048 --top_k 32 128
    python scripts/bench/potentials.py --device cuda --vocab_sizes 256000 --width 2048 --neighbors 512 --top_k 128

The floor is what no implementation on these supports avoids: two top-k passes and two log-sum-exps over the vocabulary,
one gather of embedding rows, one S x S block of inner products, and the matrix-vector products of the rounds, each as
one plain torch call. POT and geomloss get the supports, masses and capped costs as a gift: only their solve is timed.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor

import baseline
from dschat.optimal_transport import TokenGeometry, TokenPotentials, token_potentials
from dschat.optimal_transport.support import build_support
from measure import Measurement, environment, measure_in_turn

logger = logging.getLogger(__name__)

SEED = 0
CAPPED_EPSILON = 0.2  # in nearest-neighbour distances
CAPPED_TOLERANCE = 1e-3  # of the marginal error, for every solver of the capped problem
LIBRARY_ROUNDS = 1000
DENSE_LIMIT = 8192  # vocabulary up to which a [V, V] kernel is built
CONTENDERS = ("floor", "truncated", "capped", "debiased", "batch", "published", "pot", "geomloss", "dense")
LOOP_ROWS = 64  # rows of the published geometry that are really built with Python loops


@dataclass(frozen=True)
class Case:
    """Sizes of one comparison: V tokens of width D, N positions, k1 neighbours, k2 tokens kept, Sinkhorn rounds."""

    vocab_size: int
    width: int
    positions: int
    num_neighbors: int
    top_k: int
    max_iter: int
    epsilon: float


@dataclass(frozen=True)
class Inputs:
    """Random logits [N, V] and tokens [N] of one case, and its geometry."""

    policy_logits: Tensor
    reference_logits: Tensor
    tokens: Tensor
    geometry: TokenGeometry


@dataclass(frozen=True)
class Result:
    """One line of the table."""

    contender: str
    case: Case
    seconds: float
    microseconds_each: float
    """Per position; for a geometry per token."""
    peak_mebibytes: float | None
    ratio_to_floor: float | None
    marginal_error: float | None
    runs: int


@dataclass(frozen=True)
class Contender:
    """A run to be timed, and how to tell from its result the worst position's marginal error."""

    run: Callable[[], Any]
    error: Callable[[Any], float] | None = None


def make_embeddings(vocab_size: int, width: int, device: torch.device) -> Tensor:
    """[V, D] float32: clusters of 20 tokens on average, as far apart inside as real word embeddings of one topic."""
    generator = torch.Generator().manual_seed(SEED)
    centers = torch.randn(max(1, vocab_size // 20), width, generator=generator)
    members = torch.randint(len(centers), (vocab_size,), generator=generator)
    return ((centers[members] + torch.randn(vocab_size, width, generator=generator)) / width**0.5).to(device)


def make_inputs(case: Case, geometry: TokenGeometry, device: torch.device) -> Inputs:
    """Reference logits with a standard deviation of 3, the policy's half a unit from them, tokens from the policy."""
    generator = torch.Generator().manual_seed(SEED)
    reference = 3.0 * torch.randn(case.positions, case.vocab_size, generator=generator)
    policy = reference + 0.5 * torch.randn(case.positions, case.vocab_size, generator=generator)
    tokens = torch.multinomial(policy.softmax(-1), 1, generator=generator)[:, 0]
    return Inputs(policy.to(device), reference.to(device), tokens.to(device), geometry)


def floor_of(case: Case, inputs: Inputs) -> Callable[[], object]:
    """The unavoidable work, see the module's description."""
    support_size = 2 * case.top_k + 1
    ids = torch.randint(case.vocab_size, (case.positions, support_size), device=inputs.tokens.device)
    kernel = torch.rand(case.positions, support_size, support_size, device=ids.device)
    vector = torch.rand(case.positions, 1, support_size, device=ids.device)

    def run() -> None:
        for logits in (inputs.policy_logits, inputs.reference_logits):
            logits.topk(case.top_k)
            logits.logsumexp(-1)
        rows = F.embedding(ids, inputs.geometry.embeddings)
        torch.bmm(rows, rows.mT)
        for _ in range(2 * case.max_iter):
            torch.bmm(vector, kernel)

    return run


def capped_problem(case: Case, inputs: Inputs) -> tuple[Tensor, Tensor, Tensor]:
    """Policy and reference masses [N, S + 1] and capped costs [N, S + 1, S + 1], float32; the gift to the libraries.

    Repeated tokens get a mass too small to matter, because the libraries take logarithms of masses.
    """
    geometry = inputs.geometry
    logits = (inputs.policy_logits, inputs.reference_logits)
    support = build_support(*logits, inputs.tokens, top_k=case.top_k, kind="position")
    cost, kept = geometry.costs(support.ids)
    cost = cost.clamp(max=geometry.far_cost).masked_fill(~kept, geometry.far_cost)
    cost = F.pad(cost, (0, 1, 0, 1), value=geometry.far_cost)
    cost[:, -1, -1] = 0.0
    masses = (masses.exp().clamp(min=1e-12).float() for masses in (support.policy, support.reference))
    return *masses, cost.float()


def contenders_of(case: Case, inputs: Inputs, wanted: list[str]) -> dict[str, Contender]:
    """The runs to compare; those whose library is missing or whose matrices do not fit are left out."""
    ours = partial(
        token_potentials,
        inputs.policy_logits,
        inputs.reference_logits,
        inputs.tokens,
        inputs.geometry,
        top_k=case.top_k,
    )
    truncated = {"epsilon": case.epsilon, "max_iter": case.max_iter}
    capped_epsilon = CAPPED_EPSILON * inputs.geometry.nearest_distance
    capped = {"epsilon": capped_epsilon, "tol": CAPPED_TOLERANCE, "max_iter": 50, "transport": "capped"}
    builders: dict[str, Callable[[], Contender]] = {
        "floor": lambda: Contender(floor_of(case, inputs)),
        "truncated": lambda: Contender(partial(ours, **truncated)),
        "capped": lambda: Contender(partial(ours, **capped), _own_error),
        "debiased": lambda: Contender(partial(ours, debias=True, **capped), _own_error),
        "batch": lambda: Contender(partial(ours, support="batch", **truncated)),
        "published": lambda: _published(case, inputs),
        "pot": lambda: _pot(case, inputs, capped_epsilon),
        "geomloss": lambda: _geomloss(case, inputs, capped_epsilon),
        "dense": lambda: _dense(case, inputs, capped_epsilon),
    }
    contenders = {}
    for name in wanted:
        try:
            contenders[name] = builders[name]()
        except (ImportError, MemoryError) as error:
            logger.warning("V = %d: %s left out: %s", case.vocab_size, name, error)
    return contenders


def _own_error(result: TokenPotentials) -> float:
    return result.marginal_error.max().item()


def _published(case: Case, inputs: Inputs) -> Contender:
    """The published scheme on one support for the whole batch; its kernel is built beforehand."""
    costs, indices = baseline.nearest_pairs_vectorized(inputs.geometry.embeddings, num_neighbors=case.num_neighbors)
    kernel = baseline.sparse_kernel(costs, indices, vocab_size=case.vocab_size, epsilon=case.epsilon)
    return Contender(
        partial(
            baseline.batch_potentials,
            inputs.policy_logits,
            inputs.reference_logits,
            inputs.tokens,
            kernel,
            top_k=case.top_k,
            epsilon=case.epsilon,
            max_iter=case.max_iter,
        )
    )


def _pot(case: Case, inputs: Inputs, epsilon: float) -> Contender:
    """POT's batched log-domain Sinkhorn, to the same tolerance."""
    from ot.batch import solve_batch

    p, q, cost = capped_problem(case, inputs)
    settings = {"max_iter": LIBRARY_ROUNDS, "tol": CAPPED_TOLERANCE, "method": "log_sinkhorn", "grad": "detach"}

    def error(result: object) -> float:
        plan = result.plan
        return ((plan.sum(1) - q).abs().sum(1) + (plan.sum(2) - p).abs().sum(1)).max().item()

    return Contender(lambda: solve_batch(cost, epsilon, p, q, **settings), error)


def _geomloss(case: Case, inputs: Inputs, epsilon: float) -> Contender:
    """geomloss, made to use the given costs; its annealing has no stopping rule, so its error may be larger."""
    from geomloss import SamplesLoss

    p, q, cost = capped_problem(case, inputs)
    points = torch.zeros(*p.shape, 1, device=p.device)
    loss = SamplesLoss(
        "sinkhorn",
        p=1,
        blur=epsilon,
        cost=lambda *_: cost,
        debias=False,
        potentials=True,
        backend="tensorized",
        diameter=inputs.geometry.far_cost,
        scaling=0.9,
    )

    def error(result: tuple[Tensor, Tensor]) -> float:
        row, column = (potential.view_as(p) / epsilon for potential in result)
        plan = torch.exp(row[:, :, None] + column[:, None, :] - cost / epsilon) * p[:, :, None] * q[:, None, :]
        return ((plan.sum(1) - q).abs().sum(1) + (plan.sum(2) - p).abs().sum(1)).max().item()

    return Contender(lambda: loss(p, points, q, points), error)


def _dense(case: Case, inputs: Inputs, epsilon: float) -> Contender:
    """Nothing truncated: Sinkhorn rounds with the whole [V, V] capped kernel in float32."""
    geometry, size = inputs.geometry, case.vocab_size
    if size > DENSE_LIMIT:
        raise MemoryError(f"the [V, V] kernel is built up to V = {DENSE_LIMIT}")
    ids = torch.arange(size, device=inputs.tokens.device)
    kernel = torch.empty(size, size, device=ids.device)
    for block in ids.split(1024):
        cost, kept = geometry.costs_between(block, ids)
        kernel[block] = torch.exp(
            -cost.clamp(max=geometry.far_cost).masked_fill(~kept, geometry.far_cost) / epsilon
        ).float()

    def run() -> Tensor:
        p, q = inputs.policy_logits.softmax(-1), inputs.reference_logits.softmax(-1)
        v = torch.ones_like(q)
        for _ in range(case.max_iter):
            u = p / (v @ kernel)
            reached = u @ kernel
            error = (v * reached - q).abs().sum(dim=1)
            v = q / reached
        return error

    return Contender(run, lambda error: error.max().item())


def compare(case: Case, geometry: TokenGeometry, args: argparse.Namespace) -> list[Result]:
    """Measures every wanted contender on one case."""
    inputs = make_inputs(case, geometry, geometry.embeddings.device)
    contenders = contenders_of(case, inputs, args.contenders)
    measured = measure_in_turn(
        {name: contender.run for name, contender in contenders.items()},
        device=geometry.embeddings.device,
        repeats=args.repeats,
        seconds_each=args.seconds_each,
    )
    floor = measured["floor"].seconds if "floor" in measured else None
    results = []
    for name, measurement in measured.items():
        judge = contenders[name].error
        error = judge(contenders[name].run()) if judge else None
        results.append(_result(name, case, measurement, floor=floor, per=case.positions, error=error))
    return results


def measure_geometry(embeddings: Tensor, case: Case, args: argparse.Namespace) -> list[Result]:
    """Building the geometry of embeddings [V, D], against a bare blocked distance and top-k, and the published matrix.

    The published matrix is the time of its Python loops on a few rows, extrapolated to all, and of its assembly.
    """
    neighbors, blocks = case.num_neighbors, embeddings.split(1024)
    costs, indices = baseline.nearest_pairs_vectorized(embeddings, num_neighbors=neighbors)

    def bare() -> None:
        for block in blocks:
            torch.cdist(block, embeddings).topk(neighbors + 1, dim=1, largest=False)

    runs = {
        "geometry": lambda: TokenGeometry.from_embeddings(embeddings, num_neighbors=neighbors),
        "geometry floor": bare,
        "loops": lambda: baseline.nearest_pairs(embeddings, num_neighbors=neighbors, num_rows=LOOP_ROWS),
        "assembly": lambda: baseline.sparse_kernel(costs, indices, vocab_size=len(embeddings), epsilon=case.epsilon),
    }
    measured = measure_in_turn(
        runs, device=embeddings.device, repeats=min(args.repeats, 3), seconds_each=args.seconds_each
    )
    loops, assembly = measured.pop("loops"), measured.pop("assembly")
    seconds = loops.seconds * len(embeddings) / LOOP_ROWS + assembly.seconds
    measured["geometry published"] = replace(assembly, seconds=seconds)
    floor = measured["geometry floor"].seconds
    return [_result(name, case, found, floor=floor, per=len(embeddings)) for name, found in measured.items()]


def _result(
    name: str, case: Case, measurement: Measurement, *, floor: float | None, per: int, error: float | None = None
) -> Result:
    peak = measurement.peak_bytes
    return Result(
        contender=name,
        case=case,
        seconds=measurement.seconds,
        microseconds_each=1e6 * measurement.seconds / per,
        peak_mebibytes=None if peak is None else peak / 2**20,
        ratio_to_floor=measurement.seconds / floor if floor else None,
        marginal_error=error,
        runs=measurement.runs,
    )


def show(results: list[Result], console: Console) -> None:
    """One table for all cases, slowest last within each."""
    table = Table(title="Token potentials; µs are per position, for geometries per token")
    for column in ("contender", "V", "N", "k2", "k1", "seconds", "µs each", "× floor", "peak MiB", "marginal error"):
        table.add_column(column, justify="left" if column == "contender" else "right")
    previous = None
    for result in results:
        if previous is not None and previous != result.case:
            table.add_section()
        previous, case = result.case, result.case
        table.add_row(
            result.contender,
            f"{case.vocab_size:,}",
            f"{case.positions:,}",
            str(case.top_k),
            str(case.num_neighbors),
            f"{result.seconds:.4g}",
            f"{result.microseconds_each:.4g}",
            _or_dash(result.ratio_to_floor, ".2f"),
            _or_dash(result.peak_mebibytes, ".1f"),
            _or_dash(result.marginal_error, ".1e"),
        )
    console.print(table)


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vocab_sizes", type=int, nargs="+", default=[32_000], help="V, one geometry each")
    parser.add_argument("--positions", type=int, nargs="+", default=[256], help="N")
    parser.add_argument("--top_k", type=int, nargs="+", default=[32], help="k2")
    parser.add_argument("--width", type=int, default=128, help="D")
    parser.add_argument("--neighbors", type=int, nargs="+", default=[128], help="k1; the last is used for the solves")
    parser.add_argument("--max_iter", type=int, default=10, help="rounds of truncated transport")
    parser.add_argument("--epsilon", type=float, default=0.01, help="of truncated transport, in cost units")
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=CONTENDERS)
    parser.add_argument("--no_geometry", action="store_true", help="do not time the building of geometries")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each contender; the best counts")
    parser.add_argument("--seconds_each", type=float, default=4.0, help="no further run of a contender beyond this")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, default=None, help="write the numbers as JSON here")
    return parser.parse_args()


def main() -> None:
    """Runs every combination of sizes and reports."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    args = parse_arguments()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, console, results = torch.device(args.device), Console(width=140), []
    for vocab_size in args.vocab_sizes:
        embeddings = make_embeddings(vocab_size, args.width, device)
        for num_neighbors in args.neighbors:
            sizes = {"vocab_size": vocab_size, "width": args.width, "num_neighbors": num_neighbors}
            rest = {"max_iter": args.max_iter, "epsilon": args.epsilon}
            if not args.no_geometry:
                results += measure_geometry(embeddings, Case(positions=0, top_k=0, **sizes, **rest), args)
        geometry = TokenGeometry.from_embeddings(embeddings, num_neighbors=num_neighbors)
        for positions, top_k in product(args.positions, args.top_k):
            results += compare(Case(positions=positions, top_k=top_k, **sizes, **rest), geometry, args)
    show(results, console)
    if args.output:
        report = {"environment": environment(device), "results": [asdict(result) for result in results]}
        args.output.write_text(json.dumps(report, indent=2))
        console.print(f"written to {args.output}")


if __name__ == "__main__":
    main()

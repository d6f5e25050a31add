"""What the Wasserstein penalty would see in a model: neighbours, distances, kernel values, and an epsilon to use.

    python -m dschat.programs.inspect_geometry --model runs/quickstart/sft --tokens list file --plot geometry.png

Reads the tokenizer and the input embedding table, nothing else; needs no GPU. Legend: V tokens, D embedding width,
k1 neighbours (--num_neighbors, which training calls --cost_dim).
"""

from __future__ import annotations

import argparse
import difflib
import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text
from torch import Tensor
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from dschat.errors import UserError
from dschat.models.tokenizer import Vocabulary, text_of
from dschat.optimal_transport import TokenGeometry, token_potentials
from dschat.optimal_transport.geometry import BLURRED_KERNEL, INACTIVE_KERNEL, Metric
from dschat.published import EPSILON as PUBLISHED_EPSILON
from dschat.published import MAX_ITER as PUBLISHED_ROUNDS
from dschat.tools.embedding_table import read_embedding_table

METRIC_FLAGS: Mapping[str, str] = {"l2": "L2", "cosine": "cos"}
RECOMMENDED_IN_NEAREST = 0.2
"""Leaves the median nearest neighbour a kernel value of exp(-5) = 0.0067: well inside the semantic regime."""
EPSILONS_IN_NEAREST = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 10.0)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
RANDOM_PAIRS = 16_384
SEED = 0
CLOSE_PAIRS_RATIO = 0.8
"""Above this ratio of nearest to random distances all tokens are about equally far from each other."""
DEFAULT_TOKENS, SHORTEST_WORD, MOST_FREQUENT_WORDS = 6, 4, 60
MOVED_MASS, REFERENCE_MASS = 0.4, 0.9
_BLOCK_ELEMENTS = 2**24  # distances in float64 held at once
_COLUMNS_PER_BLOCK = 16_384


@dataclass(frozen=True)
class Distances:
    """Costs between tokens, all [n] float64."""

    nearest: Tensor
    """To the nearest other token, one per sampled token."""
    kth: Tensor
    """To the k1-th nearest other token, likewise."""
    random: Tensor
    """Of random pairs."""
    num_neighbors: int
    sampled: int
    """How many tokens were measured against all others."""


def load_tokens(folder: Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; UserError where there is none."""
    try:
        return AutoTokenizer.from_pretrained(folder)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"--model {folder}: the tokenizer cannot be loaded ({reason}); it names the tokens") from error


def points_of(table: Tensor, metric: Metric) -> Tensor:
    """Rows [V, D] float32 whose pairwise costs are wanted: the table itself, or unit vectors for the cosine."""
    points = table.float()
    if not points.isfinite().all():
        bad = int((~points.isfinite().all(dim=1)).nonzero()[0])
        raise UserError(f"--model: the input embedding of token {bad} holds NaN or inf; check the checkpoint")
    return torch.nn.functional.normalize(points, dim=1) if metric == "cosine" else points


def costs_to_all(points: Tensor, rows: Tensor, metric: Metric) -> Tensor:
    """Costs [N, V] float64 from the tokens rows [N] int64 to all rows of points [V, D]."""
    left = points[rows].double()
    blocks = []
    for block in points.split(_COLUMNS_PER_BLOCK):
        right = block.double()
        if metric == "cosine":
            blocks.append((1.0 - left @ right.T).clamp_(min=0.0))
        else:
            blocks.append(torch.cdist(left, right))
    return torch.cat(blocks, dim=1)


def measure(points: Tensor, *, num_neighbors: int, metric: Metric, sample: int) -> Distances:
    """Distances of points [V, D]: of at most `sample` seeded random tokens to all others, and of random pairs."""
    count = len(points)
    generator = torch.Generator().manual_seed(SEED)
    chosen = torch.randperm(count, generator=generator)[:sample].sort().values
    neighbors = min(num_neighbors, count - 1)
    nearest, kth = [], []
    for rows in chosen.split(max(1, _BLOCK_ELEMENTS // count)):
        costs = costs_to_all(points, rows, metric).scatter_(1, rows[:, None], math.inf)  # not the token itself
        nearest.append(costs.amin(dim=1))
        kth.append(costs.kthvalue(neighbors, dim=1).values)
    left = torch.randint(count, (RANDOM_PAIRS,), generator=generator)
    right = (left + torch.randint(1, count, (RANDOM_PAIRS,), generator=generator)) % count
    pairs = zip(left.split(1024), right.split(1024), strict=True)
    random = torch.cat([(points[a].double() - points[b].double()).norm(dim=1) for a, b in pairs])
    if metric == "cosine":
        random = random.square() / 2  # of unit vectors
    return Distances(torch.cat(nearest), torch.cat(kth), random, neighbors, len(chosen))


def regime(kernel_at_nearest: float) -> str:
    """Which of the three regimes an epsilon is in, from the kernel value of the median nearest neighbour."""
    if kernel_at_nearest < INACTIVE_KERNEL:
        return "inactive: no token has a visible neighbour"
    return "blurred: neighbours count like the token" if kernel_at_nearest > BLURRED_KERNEL else "semantic"


def find_token(tokenizer: PreTrainedTokenizerBase, word: str, *, vocab_size: int) -> int:
    """The id below `vocab_size` of a word, inside a text rather than at its beginning where the two differ.

    Raises:
        UserError: the word is not one token.
    """
    vocabulary = tokenizer.get_vocab()
    if word in vocabulary and vocabulary[word] >= vocab_size:
        raise UserError(f"--tokens {word}: the embedding table has no row for it ({vocab_size} rows)")
    for text in (f" {word}", word):
        ids = tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) == 1 and ids[0] != tokenizer.unk_token_id and ids[0] < vocab_size:
            return ids[0]
    if word in vocabulary:
        return vocabulary[word]
    pieces = [
        text_of(tokenizer, [index], special_tokens=True)
        for index in tokenizer(f" {word}", add_special_tokens=False).input_ids
    ]
    near = difflib.get_close_matches(word, [name.strip("Ġ▁#") for name in vocabulary], n=1)
    advice = f"did you mean {near[0]}?" if near else "name a whole token of this model"
    raise UserError(f"--tokens {word}: this is no single token of the model ({' + '.join(pieces)}); {advice}")


def word_like_tokens(tokenizer: PreTrainedTokenizerBase, *, vocab_size: int, count: int) -> list[int]:
    """Ids of `count` frequent whole words: vocabularies are ordered by frequency, so they have low ids."""
    starts = ("Ġ", "▁")
    by_id = sorted((index, name) for name, index in tokenizer.get_vocab().items() if index < vocab_size)
    marked = any(name.startswith(starts) for _, name in by_id)
    words = [
        index
        for index, name in by_id
        if len(word := name.lstrip("Ġ▁")) >= SHORTEST_WORD
        and word.isalpha()
        and (name.startswith(starts) or not marked)
        and index not in tokenizer.all_special_ids
    ][:MOST_FREQUENT_WORDS]
    return words[:: max(1, len(words) // count)][:count]


def token_text(tokenizer: PreTrainedTokenizerBase, index: int) -> str:
    """A token as people read it, spaces visible; its name in the vocabulary where it is no text of its own."""
    text = text_of(tokenizer, [index], special_tokens=True).replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")
    readable = text.isprintable() and text and "\ufffd" not in text
    return text if readable else f"<{tokenizer.convert_ids_to_tokens(index)}>"


def neighbours_table(
    points: Tensor, rows: Sequence[int], text: Callable[[int], str], metric: Metric, *, shown: int
) -> Table:
    """The nearest rows of some rows of points [V, D], with their costs; `text` of a row is its token."""
    table = Table(title=f"Nearest neighbours ({metric} cost)", title_justify="left")
    table.add_column("token")
    table.add_column("its nearest tokens", overflow="fold")
    for row in rows:
        costs = costs_to_all(points, torch.tensor([row]), metric)[0].scatter_(0, torch.tensor(row), math.inf)
        values, order = costs.topk(min(shown, len(points) - 1), largest=False)
        cells = [f"{text(int(i))} {v:.3g}" for v, i in zip(values, order, strict=True)]
        table.add_row(Text(text(row)), Text("   ".join(cells)))
    return table


def quantiles_table(found: Distances) -> Table:
    """Quantiles of the three kinds of distances."""
    table = Table(title=f"Distances, {found.sampled:,} tokens measured against all others", title_justify="left")
    table.add_column("between a token and")
    for level in QUANTILES:
        table.add_column("median" if level == 0.5 else f"{level:.0%}", justify="right")
    for name, values in (
        ("its nearest other token", found.nearest),
        (f"its k1-th nearest, k1 = {found.num_neighbors}", found.kth),
        ("a random token", found.random),
    ):
        levels = values.quantile(torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
        table.add_row(name, *(f"{level:.4g}" for level in levels))
    return table


def kernel_table(found: Distances) -> Table:
    """exp(-d/epsilon) at the median distances for a range of epsilons, and the regime of each."""
    nearest, kth, random = (float(values.median()) for values in (found.nearest, found.kth, found.random))
    table = Table(title="Kernel exp(-distance / epsilon) at the median distances", title_justify="left")
    for name in ("epsilon", "in nearest distances", "nearest", "k1-th", "random"):
        table.add_column(name, justify="right")
    table.add_column("regime")
    epsilons = sorted({*(multiple * nearest for multiple in EPSILONS_IN_NEAREST), PUBLISHED_EPSILON})
    for epsilon in epsilons:
        kernels = [math.exp(-distance / epsilon) for distance in (nearest, kth, random)]
        note = {PUBLISHED_EPSILON: " (published)", RECOMMENDED_IN_NEAREST * nearest: " (recommended)"}.get(epsilon, "")
        table.add_row(
            f"{epsilon:.3g}", f"{epsilon / nearest:.3g}", *(f"{value:.2g}" for value in kernels),
            regime(kernels[0]) + note, style="bold" if note else "",
        )  # fmt: skip
    return table


def moves_table(
    points: Tensor, rows: Sequence[int], found: Distances, text: Callable[[int], str], metric: Metric
) -> Table:
    """What the penalty of a token that gains probability is, when it is near, farther and unrelated.

    Args:
        points: [V, D] float32.
        rows: ids of the tokens that lose probability.
        found: distances in these points.
        text: how a token is shown.
        metric: of the distances.
    """
    table = Table(
        title=f"{MOVED_MASS:.1f} of the probability moves away from a token: penalty of the one that gains it",
        title_justify="left",
    )
    table.add_column("token")
    for name in ("nearest", f"k1-th ({found.num_neighbors})", "random"):
        table.add_column(f"to {name}")
        table.add_column("truncated, published", justify="right")
        table.add_column("capped, debiased", justify="right")
    generator = torch.Generator().manual_seed(SEED)
    epsilon = RECOMMENDED_IN_NEAREST * float(found.nearest.median())
    for row in rows:
        order = costs_to_all(points, torch.tensor([row]), metric)[0].scatter_(0, torch.tensor(row), -1.0).argsort()
        others = [int(order[rank]) for rank in (1, found.num_neighbors, len(points) - 1)]
        others[-1] = int(order[torch.randint(1, len(points), (), generator=generator)])
        cells: list[str] = []
        for other in others:
            published, capped = move_penalties(points, row, other, found, metric, epsilon=epsilon)
            cells += [text(other), f"{published:.3g}", f"{capped:.3g}"]
        table.add_row(*(Text(cell) for cell in (text(row), *cells)))
    return table


def move_penalties(
    points: Tensor, token: int, other: int, found: Distances, metric: Metric, *, epsilon: float
) -> tuple[float, float]:
    """Penalty of `other` after it took MOVED_MASS from `token`: truncated as published, and capped and debiased.

    The two of points [V, D] are a vocabulary of their own here, with this model's distance, radii and far cost.
    """
    both = torch.tensor([token, other])
    # the token itself is at distance 0, so the k1-th other one comes at rank k1 + 1
    radius = costs_to_all(points, both, metric).kthvalue(found.num_neighbors + 1, dim=1).values.float()
    far_cost = float(found.random.median())
    space = TokenGeometry(
        embeddings=points[both], radius=radius, metric=metric, num_neighbors=1, far_cost=far_cost,
        nearest_distance=float(found.nearest.median()), median_radius=float(found.kth.median()),
    )  # fmt: skip
    reference = torch.tensor([[REFERENCE_MASS, 1 - REFERENCE_MASS]])
    policy = reference + torch.tensor([[-MOVED_MASS, MOVED_MASS]])
    problem = (policy.log(), reference.log(), torch.tensor([1]), space)
    published = token_potentials(*problem, top_k=2, epsilon=PUBLISHED_EPSILON, max_iter=PUBLISHED_ROUNDS)
    capped = token_potentials(
        *problem, top_k=2, epsilon=epsilon, max_iter=100, tol=1e-6, transport="capped", debias=True
    )
    return published.potential.item(), capped.potential.item()


def recommendation(found: Distances, metric: Metric) -> str:
    """Which epsilon and which transport to train with, and why."""
    nearest, kth, random = (float(values.median()) for values in (found.nearest, found.kth, found.random))
    epsilon = RECOMMENDED_IN_NEAREST * nearest
    published = math.exp(-(PUBLISHED_EPSILON**-1) * nearest)
    flags = f"--cost_type {METRIC_FLAGS[metric]} --cost_dim {found.num_neighbors}"
    lines = [
        f"Recommended: epsilon = {epsilon:.3g}, that is --epsilon_unit nearest --epsilon {RECOMMENDED_IN_NEAREST}, "
        f"with --transport capped --debias {flags}.",
        f"At the published --epsilon {PUBLISHED_EPSILON} a median nearest neighbour has kernel {published:.2g} here: "
        f"{regime(published)}.",
    ]
    if regime(published).startswith("inactive"):
        lines.append(
            "Truncated transport (the default of main_wpr.py, as published) is then a log-ratio penalty whose strength "
            "is --max_iter; use it to reproduce published numbers, and --transport capped for a penalty by meaning."
        )
    else:
        lines.append(
            "Truncated transport moves mass between neighbours here, but still forbids all other moves and never "
            "converges; --transport capped charges a finite cost for them."
        )
    if kth >= random:
        lines.append(
            f"Note: the k1-th neighbour is as far as a random token, so k1 = {found.num_neighbors} makes neighbours of "
            "unrelated tokens; harmless with capped transport, else lower --cost_dim."
        )
    if nearest > CLOSE_PAIRS_RATIO * random:
        lines.append(
            f"Note: nearest neighbours are {nearest / random:.0%} as far as random tokens, so this embedding hardly "
            "tells related tokens from unrelated ones (usual for fresh or little-trained models); no epsilon can."
        )
    return "\n".join(lines)


def draw(path: Path, found: Distances, title: str) -> None:
    """Histogram of the distances with the kernels of the published and of the recommended epsilon over it."""
    # slow to import; no display is opened
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    highest = float(max(values.max() for values in (found.nearest, found.random)))
    for name, values, colour in (
        ("nearest other token", found.nearest, "#d95f02"),
        (f"{found.num_neighbors}-th nearest", found.kth, "#7b3294"),
        ("random pair", found.random, "#1f77b4"),
    ):
        axis.hist(
            values.numpy(), bins=80, range=(0, 1.02 * highest), density=True, alpha=0.45, color=colour, label=name
        )
    axis.set(title=title, xlabel="distance", ylabel="density of distances")
    kernels = axis.twinx()
    nearest = float(found.nearest.median())
    grid = torch.linspace(0, 1.02 * highest, 400)
    for epsilon, name, style in (
        (PUBLISHED_EPSILON, "published ε", ":"),
        (RECOMMENDED_IN_NEAREST * nearest, "recommended ε", "-"),
        (nearest, "ε = nearest distance", "--"),
    ):
        label = f"kernel, {name} = {epsilon:.3g}" if "=" not in name else f"kernel, {name}"
        kernels.plot(grid, (-grid / epsilon).exp(), color="#333333", linestyle=style, label=label)
    kernels.set(ylim=(1e-9, 1.5), yscale="log", ylabel="kernel exp(-distance / ε)")
    kernels.axhline(INACTIVE_KERNEL, color="#999999", linewidth=0.8)
    kernels.annotate(
        "no visible neighbour below", (0, INACTIVE_KERNEL / 2), va="top", color="#777777", fontsize="small"
    )
    lines = [artist for one in (axis, kernels) for artist in one.get_legend_handles_labels()[0]]
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize="small")
    figure.savefig(path, dpi=110)


def main() -> None:
    """Read the command line and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face model folder")
    parser.add_argument("--tokens", nargs="+", help="words whose neighbours to show; default: a few frequent ones")
    parser.add_argument("--num_neighbors", type=int, default=512, help="k1 (default: %(default)s, the paper's)")
    parser.add_argument("--metric", choices=get_args(Metric), default="l2", help="default: %(default)s")
    parser.add_argument("--shown", type=int, default=8, help="neighbours to show per token (default: %(default)s)")
    parser.add_argument("--sample", type=int, default=2048, help="tokens to measure (default: %(default)s)")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="PNG file to write")
    found = parser.parse_args()
    inspect(found)


def inspect(options: argparse.Namespace) -> None:
    """Print the report that the options ask for."""
    for flag in ("num_neighbors", "shown", "sample"):
        if getattr(options, flag) < 1:
            raise UserError(f"--{flag} must be at least 1, got {getattr(options, flag)}")
    metric: Metric = options.metric
    table = read_embedding_table(options.model)
    tokenizer = load_tokens(options.model)
    vocabulary = Vocabulary.of(tokenizer)
    rows = min(len(table), vocabulary.size)  # rows beyond the tokenizer are padding
    gaps = set(vocabulary.gaps)
    ids = [index for index in range(rows) if index not in gaps]
    points = points_of(table[ids] if gaps else table[:rows], metric)
    if options.tokens:
        tokens = [find_token(tokenizer, word, vocab_size=rows) for word in options.tokens]
    else:
        tokens = word_like_tokens(tokenizer, vocab_size=rows, count=DEFAULT_TOKENS)
    chosen = [bisect_left(ids, token) for token in tokens]

    def text(row: int) -> str:
        return token_text(tokenizer, ids[row])

    distances = measure(points, num_neighbors=options.num_neighbors, metric=metric, sample=options.sample)
    if float(distances.nearest.median()) == 0:
        raise UserError(
            f"--model {options.model}: most tokens share their embedding with another; train the model first"
        )
    console = Console()
    console = console if console.is_terminal else Console(width=160)
    console.print(f"[bold]{options.model}[/bold]: V = {len(ids):,} tokens, D = {points.shape[1]:,}")
    console.print(neighbours_table(points, chosen, text, metric, shown=options.shown))
    console.print(quantiles_table(distances))
    console.print(kernel_table(distances))
    console.print(moves_table(points, chosen, distances, text, metric))
    console.print(Text(recommendation(distances, metric)))
    if options.plot:
        draw(options.plot, distances, f"{options.model.name}: {len(ids):,} tokens, {points.shape[1]} wide")
        console.print(f"wrote {options.plot}", style="dim")

"""Four tokens, one move of probability: what KL, JS, truncated and capped transport say about it.

    python scripts/worked_example.py [--plot docs/worked_example.png] [--markdown]

The reference says "cat". The policy moves the same probability from "cat" to "kitten", to "dog" or to "table". KL and
JS see three equal changes. Truncated transport at the published epsilon does too, because the distances are many
epsilons long. Capped transport tells them apart.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dschat.optimal_transport import TokenGeometry, token_potentials
from dschat.published import EPSILON as PUBLISHED_EPSILON
from dschat.published import MAX_ITER as PUBLISHED_ROUNDS

TOKENS = ("cat", "kitten", "dog", "table")
PLACES = ((0.0, 0.0), (0.5, 0.2), (0.5, -0.9), (3.0, 0.5))
REFERENCE = (0.82, 0.06, 0.06, 0.06)
MOVED_MASS = 0.4
NUM_NEIGHBORS = 1
FAR_COST = 2.0  # four tokens have no "random pairs" whose median distance could be taken
EPSILON_IN_NEAREST = 0.2
MOST_ROUNDS, TOLERANCE = 200, 1e-12
COLUMNS = ("KL", "JS", "truncated, published", "truncated, wide ε", "capped", "capped, debiased")
COLOURS = ("#1f77b4", "#17becf", "#999999", "#cccc66", "#d95f02", "#7b3294")


@dataclass(frozen=True)
class Move:
    """The policy after `MOVED_MASS` went from the first token to another one, and what the penalties say."""

    target: str
    """The token that gained, or the word nothing."""
    distance: float
    """From the first token to the one that gained."""
    means: tuple[float, ...]
    """Mean penalty under the policy, one for each of COLUMNS; nats for KL and JS, embedding distance for the others."""
    gained: tuple[float | None, ...]
    """The penalty of the token that gained (of the first token where nothing moved); None for JS, a mean by nature."""


def geometry() -> TokenGeometry:
    """Distances between the four tokens; each has one nearest neighbour."""
    return TokenGeometry.from_embeddings(torch.tensor(PLACES), num_neighbors=NUM_NEIGHBORS, far_cost=FAR_COST)


def moves() -> list[Move]:
    """No move, then one to each of the other tokens."""
    return [compare(target) for target in range(len(TOKENS))]


def compare(target: int) -> Move:
    """All penalties of the policy that gives the token number `target` mass of the first one (0: the reference)."""
    reference = torch.tensor(REFERENCE, dtype=torch.float64)
    policy = reference.clone()
    policy[0] -= MOVED_MASS
    policy[target] += MOVED_MASS
    log_ratio = (policy / reference).log()
    means, gained = [float(policy @ log_ratio), jensen_shannon(policy, reference)], [float(log_ratio[target]), None]
    for potential in transport_potentials(policy, reference):
        means.append(float(policy @ potential))
        gained.append(float(potential[target]))
    places = torch.tensor(PLACES)
    distance = float((places[target] - places[0]).norm())
    return Move(TOKENS[target] if target else "nothing", distance, tuple(means), tuple(gained))


def jensen_shannon(policy: Tensor, reference: Tensor) -> float:
    """Jensen-Shannon divergence of two distributions [V], in nats."""
    middle = (policy + reference) / 2
    return 0.5 * sum(float(side @ (side / middle).log()) for side in (policy, reference))


def transport_potentials(policy: Tensor, reference: Tensor) -> list[Tensor]:
    """Potentials [V] float64 of all tokens under the four transport penalties of COLUMNS, for distributions [V]."""
    space = geometry()
    wide = EPSILON_IN_NEAREST * space.nearest_distance
    solved = {"epsilon": wide, "transport": "capped", "max_iter": MOST_ROUNDS, "tol": TOLERANCE}
    settings = (
        {"epsilon": PUBLISHED_EPSILON, "max_iter": PUBLISHED_ROUNDS},
        {"epsilon": wide, "max_iter": PUBLISHED_ROUNDS},
        solved,
        {**solved, "debias": True},
    )
    count = len(TOKENS)
    rows = [distribution.log().float().expand(count, count) for distribution in (policy, reference)]
    return [
        token_potentials(*rows, torch.arange(count), space, top_k=count, **chosen).potential.double()
        for chosen in settings
    ]


def cells(found: Sequence[Move]) -> list[tuple[str, ...]]:
    """Rows of text: the move, its distance, and mean penalty / penalty of the token that gained."""
    rows = []
    for move in found:
        pairs = zip(move.means, move.gained, strict=True)
        numbers = [
            _number(mean) if gained is None else f"{_number(mean)} / {_number(gained)}" for mean, gained in pairs
        ]
        rows.append((move.target, f"{move.distance:.2f}", *numbers))
    return rows


def _number(value: float) -> str:
    return f"{value + 0.0:.2f}" if round(value, 2) else "0.00"  # never "-0.00"


def markdown(found: Sequence[Move]) -> str:
    """The table of docs/regularizers.md."""
    names = ("moved to", "distance", *COLUMNS)
    lines = [names, ("---", *["---:"] * (len(names) - 1)), *cells(found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def screen_table(found: Sequence[Move]) -> Table:
    """The same for the screen."""
    table = Table(
        title=f"{MOVED_MASS:.1f} of the probability moves away from “cat”: "
        "mean penalty under the policy / penalty of the token that gained",
        title_justify="left",
    )
    for name in ("moved to", "distance", *COLUMNS):
        table.add_column(name, justify="left" if name == "moved to" else "right")
    for row in cells(found):
        table.add_row(*row)
    return table


def draw(path: Path, found: Sequence[Move]) -> None:
    """The tokens in their plane, and each penalty of the three moves beside its own value for the shortest one."""
    # slow to import; no display is opened
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    plane, bars = figure.subplots(1, 2, width_ratios=(1, 1.5))
    for name, place, mass in zip(TOKENS, PLACES, REFERENCE, strict=True):
        plane.scatter(*place, s=1200 * mass + 30, color="#555555", zorder=2)
        shift = (6, 8) if place != PLACES[0] else (-30, 20)
        plane.annotate(f"{name} ({mass:.2f})", place, xytext=shift, textcoords="offset points")
        if place != PLACES[0]:
            plane.annotate("", place, PLACES[0], arrowprops={"arrowstyle": "->", "color": "#d95f02"}, zorder=3)
    plane.set(title="a made-up embedding; reference probabilities", xlim=(-0.6, 4.2), ylim=(-1.4, 1.2), aspect="equal")
    plane.grid(alpha=0.3)
    real = [move for move in found if move.target != "nothing"]
    width = 0.8 / len(COLUMNS)
    for index, (name, colour) in enumerate(zip(COLUMNS, COLOURS, strict=True)):
        seen = [_seen(move, index) for move in real]
        offsets = [place + (index - (len(COLUMNS) - 1) / 2) * width for place in range(len(real))]
        bars.bar(offsets, [value / seen[0] for value in seen], width, label=name, color=colour)
    bars.set_xticks(range(len(real)), [f"cat → {move.target}\n(distance {move.distance:.2f})" for move in real])
    bars.set(title="penalty of the token that gained (JS: mean), “kitten” = 1", ylabel="ratio")
    bars.axhline(1, color="#333333", linewidth=0.8, linestyle="--")
    bars.grid(axis="y", alpha=0.3)
    bars.legend(fontsize="small", loc="upper left")
    figure.savefig(path, dpi=110)


def _seen(move: Move, index: int) -> float:
    gained = move.gained[index]
    return move.means[index] if gained is None else gained


def main() -> None:
    """Read the command line, show the table and draw the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", metavar="FILE", type=Path, help="PNG file to write")
    parser.add_argument("--markdown", action="store_true", help="write the table as Markdown")
    found = parser.parse_args()
    table = moves()
    if found.markdown:
        sys.stdout.write(markdown(table) + "\n")
    else:
        console = Console()
        console = console if console.is_terminal else Console(width=140)
        console.print(screen_table(table))
    if found.plot:
        draw(found.plot, table)


if __name__ == "__main__":
    main()

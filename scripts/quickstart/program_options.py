"""The command line of the code-task quickstart, read with the standard library alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quickstart.options import Options, check, make_parser

DESCRIPTION = """\
Reinforcement learning from unit tests, on 2 CPU cores without a network, or on the GPUs where there are any.

Trains a tokenizer and a small model from nothing on the built-in programming problems (tiny-apps), then PPO with the
Wasserstein penalty, where an answer's reward is what its program does on the problem's tests, run in a sandbox. Pass
rates on held-out problems before and after PPO, over several seeds of PPO, end in a table, curves.png, summary.json and
samples.md in the output folder.
The first run creates .venv in the repository's root (5 to 10 minutes, about 6 GB of free disk space needed)."""


@dataclass(frozen=True)
class AppsOptions(Options):
    """What the user asked for."""

    seeds: int
    """PPO runs, with the seed and the numbers after it."""
    allow_unsandboxed: bool
    """Run model-written programs even where no sandbox works."""


def parse_options(argv: Sequence[str] | None = None) -> AppsOptions:
    """Read the command line; exits with status 2 and one sentence where it cannot work."""
    parser = make_parser("quickstart_apps", DESCRIPTION, fast_help="a smoke run: everything smaller, one seed")
    parser.add_argument("--seed", metavar="N", type=int, default=1234, help="of the model and of the first PPO run")
    parser.add_argument("--seeds", metavar="N", type=int, help="PPO runs (default: 3)")
    parser.add_argument(
        "--allow-unsandboxed", action="store_true",
        help="run the programs even where no sandbox works, on a machine that holds nothing of value",
    )  # fmt: skip
    found = vars(parser.parse_args(argv))
    if found["seeds"] is None:
        found["seeds"] = 1 if found["fast"] else 3
    options = AppsOptions(**found)
    check(parser, options)
    if options.seeds < 1:
        parser.error(f"--seeds must be at least 1, got {options.seeds}")
    return options


if __name__ == "__main__":
    parse_options()

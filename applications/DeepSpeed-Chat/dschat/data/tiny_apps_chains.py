"""Problems of `tiny-apps` made of one to three steps, such as "the integer n plus 3, then times 4".

A few steps with many constants make more problems than one would write by hand: enough for a small model to learn their
language from some of them and to be tested on others. Each step is told in words, written as code, and computed by a
function of its own; the functions give the example's result, which the code must then reproduce.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain, permutations, product
from typing import Any

from dschat.data.tiny_apps_problems import Difficulty, Problem

CHOICE_SEED = 1234
"""Of the problems that are taken among all that could be made."""
LEVELS: tuple[Difficulty, ...] = ("introductory", "interview", "competition")
"""By the number of steps, from one on."""
NUM_INTEGER, NUM_WORD, NUM_LIST = (0, 150, 70), (40, 150, 80), (30, 150, 100)
"""Problems of one, two and three steps; integers in one step are among the simple problems."""

SUM, PRODUCT, TIGHT = range(3)
"""How strongly an expression holds together: a sum, a product, or a name, call or index."""


@dataclass(frozen=True)
class Step:
    """What is done to the value so far, for which `{}` stands in the code."""

    told: str
    code: str
    function: Callable[[Any], Any]
    strength: int = TIGHT
    wanted_strength: int = TIGHT
    """A weaker expression is put in brackets before the step."""
    letters: str = ""
    """Letters that a word must have to show whether the step is done."""


@cache
def chain_problems() -> tuple[Problem, ...]:
    """The problems of this file, in a fixed order."""
    generator = random.Random(CHOICE_SEED)
    kinds = ((_integer_problems(), NUM_INTEGER), (_word_problems(), NUM_WORD), (_list_problems(), NUM_LIST))
    found: list[Problem] = []
    for problems, counts in kinds:
        made = list(problems)
        for level, count in zip(LEVELS, counts, strict=True):
            found += generator.sample([problem for problem in made if problem.difficulty == level], count)
    return tuple(found)


def _integer_problems() -> Iterator[Problem]:
    sums = [step(k) for k in range(1, 16) for step in (_plus, _minus)]
    products = [_times(k) for k in range(2, 13)]
    remainders = [_modulo(k) for k in range(3, 13)]
    for steps in chain(
        *(product(sums, products), product(products, sums), product(sums, remainders)),
        *(product(sums, products, sums), product(products, sums, products)),
    ):
        yield _chained("compute", "n", "the integer n", steps, (25,))


def _plus(k: int) -> Step:
    return Step(f"plus {k}", f"{{}} + {k}", lambda value: value + k, SUM, SUM)


def _minus(k: int) -> Step:
    return Step(f"minus {k}", f"{{}} - {k}", lambda value: value - k, SUM, SUM)


def _times(k: int) -> Step:
    return Step(f"times {k}", f"{{}} * {k}", lambda value: value * k, PRODUCT, PRODUCT)


def _modulo(k: int) -> Step:
    return Step(f"modulo {k}", f"{{}} % {k}", lambda value: value % k, PRODUCT, PRODUCT)


def _word_problems() -> Iterator[Problem]:
    cuts = [step for k in range(1, 6) for step in _cuts(k)]
    letters = [_without(a) for a in "bcdgklmnpu"] + [_replaced(a, b) for a in "aelnrst" for b in "xyz"]
    shapes = [_backwards(), _in_order(), *(_written(k) for k in range(2, 8))]
    cases = [_upper(), _capital()]
    for steps in chain(
        ((step,) for step in (*cuts, *letters, *shapes, *cases)),
        *(product(first, second) for first, second in permutations((cuts, letters, shapes), 2)),
        *(product(first, cases) for first in (cuts, letters, shapes)),
        *(product(cuts, letters, shapes), product(cuts, shapes, cases), product(letters, shapes, cases)),
    ):
        yield _chained("rewrite", "word", "the word", steps, ("planet",))


def _cuts(k: int) -> tuple[Step, ...]:
    many = f"{k} letters" if k > 1 else "letter"
    return (
        Step(f"cut to its first {many}", f"{{}}[:{k}]", lambda value: value[:k]),
        Step(f"cut to its last {many}", f"{{}}[-{k}:]", lambda value: value[max(0, len(value) - k) :]),
        Step(f"without its first {many}", f"{{}}[{k}:]", lambda value: value[k:]),
        Step(f"without its last {many}", f"{{}}[:-{k}]", lambda value: value[: max(0, len(value) - k)]),
    )


def _without(letter: str) -> Step:
    return Step(
        f"without every {letter}", f"{{}}.replace('{letter}', '')",
        lambda value: "".join(other for other in value if other != letter), letters=letter,
    )  # fmt: skip


def _replaced(old: str, new: str) -> Step:
    return Step(
        f"with {new} for every {old}", f"{{}}.replace('{old}', '{new}')",
        lambda value: "".join(new if other == old else other for other in value), letters=old,
    )  # fmt: skip


def _written(k: int) -> Step:
    return Step(f"written {k} times", f"{{}} * {k}", lambda value: "".join([value] * k), PRODUCT)


def _backwards() -> Step:
    return Step("backwards", "{}[::-1]", lambda value: "".join(reversed(value)))


def _in_order() -> Step:
    return Step("with its letters in order", "''.join(sorted({}))", lambda value: "".join(sorted(value)), TIGHT, SUM)


def _upper() -> Step:
    return Step("in upper case", "{}.upper()", str.upper)


def _capital() -> Step:
    return Step("with a capital first letter", "{}.capitalize()", str.capitalize)


def _chained(name: str, parameter: str, start: str, steps: Sequence[Step], arguments: tuple[Any, ...]) -> Problem:
    code, strength, value = parameter, TIGHT, arguments[0]
    for step in steps:
        code = step.code.format(code if strength >= step.wanted_strength else f"({code})")
        strength, value = step.strength, step.function(value)
    told = f"{start} {', then '.join(step.told for step in steps)}"
    words = tuple((f"{a}{a}oi{a}{a}",) for step in steps for a in step.letters)
    return Problem(name, parameter, told, code, (arguments, value), LEVELS[len(steps) - 1], more=words)


@dataclass(frozen=True)
class Part:
    """One part of what is asked for about a list; "" and the identity where it is left out."""

    told: str
    code: str
    function: Callable[[Any], Any]
    edges: tuple[int, ...] = ()
    """Numbers that a list must have to show just where the line is drawn."""


_ALL = Part("numbers", "", lambda n: True)
_UNCHANGED = Part("", "n", lambda n: n)
_AS_IT_IS = Part("the {}", "{}", lambda values: values)


def _list_problems() -> Iterator[Problem]:
    kept = [
        Part("even numbers", "n % 2 == 0", lambda n: n % 2 == 0),
        Part("odd numbers", "n % 2 == 1", lambda n: n % 2 == 1),
        *(part(k) for k in range(12, 49) if k % 5 for part in (_above, _below)),
        *(_divisible(k) for k in range(3, 7)),
    ]
    changed = [
        *(_each_plus(k) for k in range(8, 20)),
        *(_each_minus(k) for k in range(1, 20)),
        *(_each_times(k) for k in range(3, 13)),
    ]
    gathered = [
        Part("the sum of the {}", "sum({})", sum),
        Part("the {} in ascending order", "sorted({})", sorted),
        Part("the {} in reverse order", "{}[::-1]", lambda values: list(reversed(values))),
        Part("the first two of the {}", "{}[:2]", lambda values: values[:2]),
        Part("the last two of the {}", "{}[-2:]", lambda values: values[max(0, len(values) - 2) :]),
    ]
    counted = Part("how many {} there are", "len({})", len)
    for parts in chain(
        product(kept, [_UNCHANGED], [_AS_IT_IS]),
        product([_ALL], changed, [_AS_IT_IS]),
        product(kept, changed, [_AS_IT_IS]),
        product(kept, [_UNCHANGED], [*gathered, counted]),
        product([_ALL], changed, gathered),
        product(kept, changed, gathered),
    ):
        yield _listed(*parts)


def _above(k: int) -> Part:
    return Part(f"numbers above {k}", f"n > {k}", lambda n: n > k, (k - 1, k, k + 1))


def _below(k: int) -> Part:
    return Part(f"numbers below {k}", f"n < {k}", lambda n: n < k, (k - 1, k, k + 1))


def _divisible(k: int) -> Part:
    return Part(f"numbers divisible by {k}", f"n % {k} == 0", lambda n: n % k == 0, (k, 2 * k, 5 * k))


def _each_plus(k: int) -> Part:
    return Part(f", each plus {k},", f"n + {k}", lambda n: n + k)


def _each_minus(k: int) -> Part:
    return Part(f", each minus {k},", f"n - {k}", lambda n: n - k)


def _each_times(k: int) -> Part:
    return Part(f", each times {k},", f"n * {k}", lambda n: n * k)


def _listed(kept: Part, changed: Part, gathered: Part) -> Problem:
    condition = f" if {kept.code}" if kept.code else ""
    numbers = [3, 55, 20, 41, 12]
    value = gathered.function([changed.function(n) for n in numbers if kept.function(n)])
    told = gathered.told.format(kept.told + changed.told).rstrip(",")
    code = gathered.code.format(f"[{changed.code} for n in numbers{condition}]")
    edges = tuple((list(order),) for order in (kept.edges, kept.edges[::-1]) if order)
    steps = (kept is not _ALL) + (changed is not _UNCHANGED) + (gathered is not _AS_IT_IS)
    return Problem("collect", "numbers", told, code, ((numbers,), value), LEVELS[steps - 1], more=edges)

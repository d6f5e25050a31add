"""The simpler problems of `tiny-apps`: what is asked, a solution of one line, and an example worked out by hand.

Names of parameters tell their kind: `a`, `b`, `c`, `n` are integers, `numbers` is a list of integers, `word` and
`other` are words of lower-case letters, `line` is words with one space between them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

Difficulty = Literal["introductory", "interview", "competition"]


@dataclass(frozen=True)
class Problem:
    """One problem, from which a version that asks for a function and one that reads standard input are made."""

    name: str
    """Of the function; problems that differ in a constant share it."""
    parameters: str
    """Names, separated by spaces."""
    answer: str
    """What is asked for, as it stands after "returns" or "print"."""
    solution: str
    """A Python expression of the parameters, or the lines of a function's body, which may be indented."""
    example: tuple[tuple[Any, ...], Any]
    """Arguments and result."""
    difficulty: Difficulty = "introductory"
    smallest: int = 1
    """Of the integers in its tests."""
    largest: int = 60
    more: tuple[tuple[Any, ...], ...] = ()
    """Arguments of further tests, such as corner cases that random ones would miss."""


def simple_problems() -> tuple[Problem, ...]:
    """The problems of this file, in a fixed order."""
    return (
        *_arithmetic(), *_constants(), *_words(), *_letters(), *_lists(), *_filters(), *_lines(),
    )  # fmt: skip


def _arithmetic() -> Iterator[Problem]:
    yield Problem("add", "a b", "the sum of the integers a and b", "a + b", ((3, 4), 7))
    yield Problem("subtract", "a b", "the integer a minus the integer b", "a - b", ((9, 4), 5))
    yield Problem("multiply", "a b", "the product of the integers a and b", "a * b", ((3, 4), 12))
    yield Problem("larger", "a b", "the larger of the integers a and b", "max(a, b)", ((3, 4), 4))
    yield Problem("smaller", "a b", "the smaller of the integers a and b", "min(a, b)", ((3, 4), 3))
    yield Problem("distance", "a b", "the distance between the integers a and b", "abs(a - b)", ((3, 8), 5))
    yield Problem("quotient", "a b", "how many whole times the integer b fits into a", "a // b", ((17, 5), 3))
    yield Problem("remainder", "a b", "the remainder of the integer a divided by b", "a % b", ((17, 5), 2))
    yield Problem("perimeter", "a b", "the perimeter of a rectangle with sides a and b", "2 * (a + b)", ((3, 4), 14))
    yield Problem("average", "a b", "the average of the integers a and b", "(a + b) / 2", ((3, 4), 3.5))
    yield Problem("add", "a b c", "the sum of the integers a, b and c", "a + b + c", ((3, 4, 5), 12))
    yield Problem("multiply", "a b c", "the product of the integers a, b and c", "a * b * c", ((2, 3, 4), 24))
    yield Problem("largest", "a b c", "the largest of the integers a, b and c", "max(a, b, c)", ((3, 9, 5), 9))
    yield Problem("smallest", "a b c", "the smallest of the integers a, b and c", "min(a, b, c)", ((3, 9, 5), 3))
    yield Problem("middle", "a b c", "the middle one of a, b and c in order", "sorted([a, b, c])[1]", ((3, 9, 5), 5))
    yield Problem("square", "n", "the square of the integer n", "n * n", ((5,), 25))
    yield Problem("cube", "n", "the cube of the integer n", "n ** 3", ((3,), 27))
    yield Problem("negate", "n", "the integer n with the other sign", "-n", ((5,), -5), smallest=-30)
    yield Problem("absolute", "n", "the absolute value of the integer n", "abs(n)", ((-5,), 5), smallest=-30)
    yield Problem("last_digit", "n", "the last digit of the integer n", "n % 10", ((47,), 7), largest=999)
    yield Problem("half", "n", "half of the integer n", "n / 2", ((7,), 3.5))
    yield Problem("power", "n", "2 to the power of the integer n", "2 ** n", ((5,), 32), largest=20)
    yield Problem("parity", "n", "even or odd, which the integer n is", "'odd' if n % 2 else 'even'", ((5,), "odd"))
    yield Problem(
        "sign", "n", "plus if the integer n is above 0, else minus", "'plus' if n > 0 else 'minus'", ((-2,), "minus"),
        smallest=-30, largest=30, more=((0,), (1,)),
    )  # fmt: skip


def _constants() -> Iterator[Problem]:
    for k in range(1, 101):
        yield Problem("add", "n", f"the integer n plus {k}", f"n + {k}", ((30,), 30 + k))
        yield Problem("subtract", "n", f"the integer n minus {k}", f"n - {k}", ((30,), 30 - k))
    for k in range(2, 41):
        yield Problem("multiply", "n", f"the integer n times {k}", f"n * {k}", ((10,), 10 * k))
        yield Problem("remainder", "n", f"the remainder of the integer n divided by {k}", f"n % {k}", ((k + 1,), 1))
        yield Problem(
            "quotient", "n", f"how many whole times {k} fits into the integer n", f"n // {k}", ((k + 1,), 1), largest=99
        )
    for k in range(2, 10):
        for m in range(1, 10):
            yield Problem("line", "n", f"the integer n times {k}, plus {m}", f"n * {k} + {m}", ((10,), 10 * k + m))
    for k in range(2, 26):
        yield Problem(
            "divisible", "n", f"yes if the integer n is divisible by {k}, else no", f"'no' if n % {k} else 'yes'",
            ((2 * k,), "yes"), more=((3 * k,), (3 * k + 1,), (k,), (5 * k,)),
        )  # fmt: skip
    for k in range(5, 60, 5):
        yield Problem(
            "above", "n", f"yes if the integer n is above {k}, else no", f"'yes' if n > {k} else 'no'", ((k,), "no"),
            more=((k + 1,), (k - 1,), (k - 4,), (k + 9,)),
        )  # fmt: skip
        yield Problem(
            "capped", "n", f"the smaller of the integer n and {k}", f"min(n, {k})", ((k + 5,), k),
            more=((k - 1,), (k - 4,), (k + 1,)),
        )  # fmt: skip


def _words() -> Iterator[Problem]:
    yield Problem("length", "word", "the number of letters of the word", "len(word)", (("apple",), 5))
    yield Problem("reverse", "word", "the word backwards", "word[::-1]", (("cat",), "tac"))
    yield Problem("shout", "word", "the word in upper case", "word.upper()", (("cat",), "CAT"))
    yield Problem("capital", "word", "the word with a capital first letter", "word.capitalize()", (("cat",), "Cat"))
    yield Problem("first", "word", "the first letter of the word", "word[0]", (("cat",), "c"))
    yield Problem("last", "word", "the last letter of the word", "word[-1]", (("cat",), "t"))
    yield Problem("order", "word", "the letters of the word in order", "''.join(sorted(word))", (("cat",), "act"))
    yield Problem("inner", "word", "the word without its first and last letter", "word[1:-1]", (("apple",), "ppl"))
    yield Problem(
        "join", "word other", "the first word followed by the other", "word + other", (("sun", "day"), "sunday")
    )
    yield Problem("dash", "word other", "both words with a dash between", "word + '-' + other", (("a", "b"), "a-b"))
    yield Problem("total", "word other", "the letters in both words", "len(word) + len(other)", (("sun", "day"), 6))
    yield Problem("first_of", "word other", "the word that comes first", "min(word, other)", (("sun", "day"), "day"))
    for k in range(2, 6):
        yield Problem("repeat", "word", f"the word {k} times in a row", f"word * {k}", (("ab",), "ab" * k))
        yield Problem("begin", "word", f"the first {k} letters of the word", f"word[:{k}]", (("orange",), "orange"[:k]))
        yield Problem("end", "word", f"the last {k} letters of the word", f"word[-{k}:]", (("orange",), "orange"[-k:]))
        yield Problem(
            "drop", "word", f"the word without its first {k} letters", f"word[{k}:]", (("orange",), "orange"[k:])
        )


def _letters() -> Iterator[Problem]:
    for letter in "abcdefghilmnoprstuwy":
        yield Problem(
            "count", "word", f"how often the letter {letter} is in the word", f"word.count('{letter}')",
            ((letter + "xx" + letter,), 2), more=(("x" + letter * 3,), (letter + "zz",), ("xvx",)),
        )  # fmt: skip
        yield Problem(
            "remove", "word", f"the word without every letter {letter}", f"word.replace('{letter}', '')",
            (("x" + letter + "v",), "xv"), more=((letter + "zz" + letter,), ("zz" + letter,), (letter + "xv",)),
        )  # fmt: skip
        yield Problem(
            "has", "word", f"yes if the letter {letter} is in the word, else no",
            f"'yes' if '{letter}' in word else 'no'",
            (("x" + letter + "v",), "yes"), more=(("xvz",), (letter,), (letter + "xv",), ("vx",)),
        )  # fmt: skip
        yield Problem(
            "mask", "word", f"the word with every letter {letter} replaced by a star", f"word.replace('{letter}', '*')",
            (("x" + letter + "v",), "x*v"), more=((letter + "zz" + letter,), ("zz" + letter,), (letter + "xv",)),
        )  # fmt: skip


def _lists() -> Iterator[Problem]:
    yield Problem("total", "numbers", "the sum of the numbers", "sum(numbers)", (([3, 1, 2],), 6))
    yield Problem("largest", "numbers", "the largest of the numbers", "max(numbers)", (([3, 1, 2],), 3))
    yield Problem("smallest", "numbers", "the smallest of the numbers", "min(numbers)", (([3, 1, 2],), 1))
    yield Problem("length", "numbers", "how many numbers there are", "len(numbers)", (([3, 1, 2],), 3))
    yield Problem("first", "numbers", "the first of the numbers", "numbers[0]", (([3, 1, 2],), 3))
    yield Problem("last", "numbers", "the last of the numbers", "numbers[-1]", (([3, 1, 2],), 2))
    yield Problem(
        "ascending", "numbers", "the numbers in ascending order", "sorted(numbers)", (([3, 1, 2],), [1, 2, 3])
    )
    yield Problem("reverse", "numbers", "the numbers in reverse order", "numbers[::-1]", (([3, 1, 2],), [2, 1, 3]))
    yield Problem(
        "spread", "numbers", "the largest minus the smallest number", "max(numbers) - min(numbers)", (([3, 1],), 2)
    )
    yield Problem("mean", "numbers", "the mean of the numbers", "sum(numbers) / len(numbers)", (([3, 4],), 3.5))
    yield Problem(
        "alternate", "numbers", "every second number, from the first on", "numbers[::2]", (([3, 1, 2],), [3, 2])
    )
    yield Problem(
        "ends", "numbers", "the sum of the first and the last number", "numbers[0] + numbers[-1]", (([3, 1, 2],), 5)
    )
    yield Problem("doubles", "numbers", "each number times 2", "[2 * n for n in numbers]", (([3, 1],), [6, 2]))
    yield Problem("squares", "numbers", "the square of each number", "[n * n for n in numbers]", (([3, 1],), [9, 1]))
    for k in range(1, 8):
        yield Problem(
            "shift", "numbers", f"each number plus {k}", f"[n + {k} for n in numbers]", (([3, 1],), [3 + k, 1 + k])
        )


def _filters() -> Iterator[Problem]:
    yield Problem("evens", "numbers", "the even numbers", "[n for n in numbers if n % 2 == 0]", (([3, 4, 2],), [4, 2]))
    yield Problem("odds", "numbers", "the odd numbers", "[n for n in numbers if n % 2]", (([3, 4, 1],), [3, 1]))
    yield Problem(
        "count_even", "numbers", "how many numbers are even", "sum(n % 2 == 0 for n in numbers)", (([3, 4, 2],), 2)
    )
    yield Problem(
        "distinct", "numbers", "how many different numbers there are", "len(set(numbers))", (([3, 1, 3],), 2),
        more=(([7, 7, 7],), ([1, 2, 1, 2],)),
    )  # fmt: skip
    yield Problem(
        "position", "numbers", "the position of the largest number, counted from 0", "numbers.index(max(numbers))",
        (([3, 9, 2],), 1),
    )  # fmt: skip
    for k in range(5, 60, 5):
        yield Problem(
            "over", "numbers", f"the numbers above {k}", f"[n for n in numbers if n > {k}]", (([k, k + 1],), [k + 1])
        )
        yield Problem(
            "count_over", "numbers", f"how many numbers are above {k}", f"sum(n > {k} for n in numbers)",
            (([k, k + 1, k + 2],), 2),
        )  # fmt: skip


def _lines() -> Iterator[Problem]:
    for name, answer, solution, line, result in (
        ("words", "how many words the line has", "len(line.split())", "the red cat", 3),
        (
            "longest",
            "the first of the longest words of the line",
            "max(line.split(), key=len)",
            "the green cat",
            "green",
        ),
        (
            "backwards",
            "the line with its words in reverse order",
            "' '.join(line.split()[::-1])",
            "a red cat",
            "cat red a",
        ),
        (
            "initials",
            "the first letters of the words of the line",
            "''.join(w[0] for w in line.split())",
            "a cat",
            "ac",
        ),
        ("titles", "the line with every word capitalized", "line.title()", "the red cat", "The Red Cat"),
        (
            "in_order",
            "the line with its words in alphabetical order",
            "' '.join(sorted(line.split()))",
            "red cat",
            "cat red",
        ),
        (
            "lengths",
            "the length of each word of the line",
            "[len(w) for w in line.split()]",
            "the green cat",
            [3, 5, 3],
        ),
        ("snake", "the line with underscores for spaces", "line.replace(' ', '_')", "the red cat", "the_red_cat"),
    ):
        yield Problem(name, "line", answer, solution, ((line,), result), "interview")

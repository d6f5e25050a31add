"""`tiny-apps`: small programming problems in the schema of APPS, for runs that need no network.

Each problem becomes two rows: one asks for a function, the other for a program that reads
standard input. Expected outputs are computed by the problem's solution, which must first give the result that was
worked out by hand. The example in the statement is not among the tests. Every problem has two solutions, of which the
second thinks aloud in a comment first: with a tight limit on an answer's length that habit, learned by imitation, costs
the program, which is what reinforcement learning can find out.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from itertools import starmap
from pathlib import Path
from textwrap import indent
from typing import Any

import datasets
from datasets import Dataset

from dschat.data.cache import cached_folder, code_key, content_key, quiet_datasets
from dschat.data.tiny_apps_algorithms import algorithm_problems
from dschat.data.tiny_apps_chains import chain_problems
from dschat.data.tiny_apps_problems import Problem, simple_problems

logger = logging.getLogger(__name__)

NUM_TESTS = 8
DIVISION_SEED = 1234
"""Of the problems that are held out, and of the tests' inputs."""
TEST_SHARE = 0.15
"""Of the problems, held out as the test split, in both of their forms."""
NUM_NUMBERS = (4, 8)
"""Shortest and longest list of numbers in a test."""
NUM_WORDS = (2, 5)
"""Shortest and longest line."""
THINKING = "# So look at what is given, think of what is asked for, and then write it down in a line or two.\n"
"""In every second solution, as people do: whoever imitates them spends words before coming to the point."""

_WORDS = (
    "apple area assess banana bookkeeper bottle butter cherry coffee cotton cup dinner dragon eagle ear egg forest "
    "garden hammer ice island jacket kitchen letter little marble mirror needle noodle orange otter owl parrot pepper "
    "pie planet rabbit ratio river rocket sailor sea season silver sister spider store street summer sunset tailor "
    "tattoo temple tiger tomato tree tunnel turtle valley violet wagon water willow window winter yellow zebra zoo"
).split()
_LISTS, _WORD_LIKE = {"numbers"}, {"word", "other", "line"}


@dataclass(frozen=True)
class TinyAppsSource:
    """Rows made from the problems, kept in the cache folder.

    They are the same for every seed of a run: no run trains on what another holds out.
    """

    cache_dir: Path

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Train and test rows; no problem is in both."""
        folder = cached_folder(self.cache_dir, f"tiny-apps_{self.fingerprint()}", self._build)
        return {name: datasets.load_from_disk(str(folder / name)) for name in ("train", "test")}

    def fingerprint(self) -> str:
        """Key of the code, of which the problems are a part."""
        return content_key({"code": code_key()})

    def _build(self, folder: Path) -> None:
        splits = build_rows(all_problems(), seed=DIVISION_SEED)
        with quiet_datasets():
            for name, rows in splits.items():
                Dataset.from_list(rows).save_to_disk(str(folder / name))
        logger.info("built tiny-apps: %d training and %d test problems", len(splits["train"]), len(splits["test"]))


def all_problems() -> tuple[Problem, ...]:
    """Every problem, in a fixed order."""
    written = (*simple_problems(), *algorithm_problems())
    known = {problem.answer for problem in written}
    return (*written, *(problem for problem in chain_problems() if problem.answer not in known))


def build_rows(problems: Sequence[Problem], *, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Rows in the schema of `codeparrot/apps`.

    Args:
        problems: different from each other.
        seed: of the division and the tests' inputs.
    Returns:
        "train" and "test" rows, two of each problem.
    Raises:
        ValueError: a solution does not give the result of its example.
    """
    generator = random.Random(seed)
    held_out = set(generator.sample(range(len(problems)), round(len(problems) * TEST_SHARE)))
    splits: dict[str, list[dict[str, Any]]] = {"train": [], "test": []}
    for number, problem in enumerate(problems):
        arguments = _test_arguments(problem, generator)
        results = list(starmap(_solution(problem), arguments))
        rows = (_call_row(problem, arguments, results), _script_row(problem, arguments, results))
        for form, row in enumerate(rows):
            identity = {"problem_id": 2 * number + form, "difficulty": problem.difficulty, "url": ""}
            splits["test" if number in held_out else "train"].append(identity | row)
    return splits


def _call_row(problem: Problem, arguments: Sequence[tuple[Any, ...]], results: Sequence[Any]) -> dict[str, str]:
    """The problem as a function."""
    signature = f"{problem.name}({', '.join(problem.parameters.split())})"
    values, result = problem.example
    example = f"{problem.name}({', '.join(map(repr, values))}) returns {result!r}."
    tests = {"fn_name": problem.name, "inputs": [list(values) for values in arguments], "outputs": list(results)}
    return {
        "question": f"Write a function {signature} that returns {problem.answer}.\nExample: {example}",
        "solutions": json.dumps(_solutions(problem, _function(problem))),
        "input_output": json.dumps(tests),
        "starter_code": f"def {signature}:\n",
    }


def _script_row(problem: Problem, arguments: Sequence[tuple[Any, ...]], results: Sequence[Any]) -> dict[str, str]:
    """The problem as a program that reads and prints."""
    names = problem.parameters.split()
    values, result = problem.example
    tests = {
        "inputs": [_input_text(names, each) for each in arguments],
        "outputs": [f"{_printed(each)}\n" for each in results],
    }
    return {
        "question": f"Read {_described(names)} and print {problem.answer}.\n"
        f"Example: for\n{_input_text(names, values)}print\n{_printed(result)}",
        "solutions": json.dumps(_solutions(problem, _script(problem, names, prints_list=isinstance(result, list)))),
        "input_output": json.dumps(tests),
        "starter_code": "",
    }


def _solutions(problem: Problem, solution: str) -> list[str]:
    """The solution, and the same one after a comment that thinks aloud."""
    return [solution, f"# We are asked for {problem.answer}.\n{THINKING}{solution}"]


def _function(problem: Problem) -> str:
    body = cleandoc(problem.solution) if _is_body(problem) else f"return {problem.solution}"
    return f"def {problem.name}({', '.join(problem.parameters.split())}):\n{indent(body, '    ')}\n"


def _script(problem: Problem, names: Sequence[str], *, prints_list: bool) -> str:
    readers = [
        f"{names[0]} = list(map(int, input().split()))" if names[0] in _LISTS else "",
        *(f"{name} = input()" for name in names if name in _WORD_LIKE),
    ]
    integers = [name for name in names if name not in _LISTS | _WORD_LIKE]
    if integers:
        one = f"{integers[0]} = int(input())"
        readers.append(one if len(integers) == 1 else f"{', '.join(integers)} = map(int, input().split())")
    star = "*" if prints_list else ""
    reading = "".join(f"{line}\n" for line in readers if line)
    if _is_body(problem):
        return f"{_function(problem)}\n{reading}print({star}{problem.name}({', '.join(names)}))\n"
    return f"{reading}print({star}{problem.solution})\n"


def _is_body(problem: Problem) -> bool:
    """Whether the solution is the lines of a function and not an expression."""
    return "return " in problem.solution


def _described(names: Sequence[str]) -> str:
    """What a script reads."""
    if names[0] in _LISTS:
        return "numbers from one line"
    if names[0] in _WORD_LIKE:
        return {"word": "a word", "line": "a line"}[names[0]] if len(names) == 1 else "two words, one on each line,"
    return "the integer n" if len(names) == 1 else f"the integers {', '.join(names[:-1])} and {names[-1]} from one line"


def _input_text(names: Sequence[str], values: Sequence[Any]) -> str:
    """Standard input of one test: integers on one line, anything else on a line of its own."""
    if names[0] in _WORD_LIKE:
        return "".join(f"{value}\n" for value in values)
    numbers = values[0] if names[0] in _LISTS else values
    return " ".join(map(str, numbers)) + "\n"


def _printed(result: Any) -> str:
    return " ".join(map(str, result)) if isinstance(result, list) else str(result)


def _solution(problem: Problem) -> Callable[..., Any]:
    """The problem's solution, checked on the example; these are our own texts, not a model's."""
    namespace: dict[str, Any] = {}
    exec(_function(problem), namespace)
    solution = namespace[problem.name]
    values, result = problem.example
    if solution(*values) != result:
        raise ValueError(f"{problem.name}{values} gives {solution(*values)!r}, the example says {result!r}")
    return solution


def _test_arguments(problem: Problem, generator: random.Random) -> list[tuple[Any, ...]]:
    """Arguments of the tests, all different and none of them the example's."""
    found = list(problem.more)
    while len(found) < NUM_TESTS:
        drawn = tuple(_draw(name, problem, generator) for name in problem.parameters.split())
        if drawn not in found and drawn != problem.example[0]:
            found.append(drawn)
    return found


def _draw(name: str, problem: Problem, generator: random.Random) -> Any:
    if name in _LISTS:
        return [generator.randint(problem.smallest, problem.largest) for _ in range(generator.randint(*NUM_NUMBERS))]
    if name == "line":
        return " ".join(generator.choices(_WORDS, k=generator.randint(*NUM_WORDS)))
    if name in _WORD_LIKE:
        return generator.choice(_WORDS)
    return generator.randint(problem.smallest, problem.largest)

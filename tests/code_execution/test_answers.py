from __future__ import annotations

import pytest

from dschat.code_execution.answers import extract_program
from tests.code_execution.graded_programs import BROKEN, HONEST, Case

PROGRAM = "n = int(input())\nprint(n + 1)\n"


@pytest.mark.parametrize("case", HONEST, ids=lambda case: case.name)
def test_a_program_is_left_as_it_is(case: Case) -> None:
    assert extract_program(case.program) == case.program


@pytest.mark.parametrize(
    "program",
    ["a, b = input().split()\n", "try:\n    x\nexcept: pass\n", "x = 1 if 2 else 3\n", "# Here is\nprint(1)\n"],
)
def test_a_first_line_of_code_is_not_taken_for_english(program: str) -> None:
    assert extract_program(program) == program


@pytest.mark.parametrize(
    "answer",
    [
        f"```python\n{PROGRAM}```",
        f"```\n{PROGRAM}```\n",
        f"```py\n{PROGRAM}```\nIt adds one.",
        f"Here is the program:\n\n```python\n{PROGRAM}```\n\nIt adds one to n.",
        f"~~~python\n{PROGRAM}~~~",
        f"````python\n{PROGRAM}````",
        f"```Python3 title=x\n{PROGRAM}```",
        f"```python\n{PROGRAM}",
        f"For example:\n```\n5\n```\nprints 6.\n```python\n{PROGRAM}```",
        f"```python\n{PROGRAM}```\nRun it:\n```bash\necho 1 2 3 4 5 6 7 8 9 | python3 program.py | sort | uniq\n```",
        f"```python\n{PROGRAM}```\nor shorter\n```python\nx\n```",
        f"  1. First\n   ```python\n   {PROGRAM.replace(chr(10), chr(10) + '   ').rstrip(' ')}   ```",
        f"Here is the solution:\n{PROGRAM}",
        f"Sure! This program adds one.\n\n{PROGRAM}",
        f"Solution:\n{PROGRAM}",
        f"\n\nThe idea is simple. We read n first.\nThen we print n plus one.\n\n{PROGRAM}",
    ],
)
def test_the_program_is_found_in_an_answer(answer: str) -> None:
    assert extract_program(answer) == PROGRAM


def test_a_block_in_another_language_is_better_than_nothing() -> None:
    assert extract_program("It is\n```cpp\nint main() {}\n```") == "int main() {}\n"


@pytest.mark.parametrize("answer", ["", "no program at all", "Sorry, I do not know.", "\n\n"])
def test_an_answer_without_a_program_comes_back(answer: str) -> None:
    assert extract_program(answer) == answer


def test_broken_programs_raise_nothing() -> None:
    assert all(isinstance(extract_program(case.program), str) for case in BROKEN)


@pytest.mark.parametrize("unit", ["```", "```python\n", "~~~\n", "a ", "(", "Here is the answer: ", "x\n"])
def test_long_answers_take_no_time(unit: str) -> None:
    assert extract_program(unit * 20_000) is not None

"""Programming problems: prompts, solutions and tests (`data/apps.py`)."""

from __future__ import annotations

import pytest

from tests.data.test_raw_datasets import APPS_PROMPT, apps, raw_of


def test_apps_gives_sft_one_sample_for_each_solution_and_others_the_problem(tmp_path):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps()] * 2)
    row = splits.train[0]
    assert [raw.chosen(each) for each in raw.expand(row)] == ["print(1)", "print(null)"]
    assert raw.group(row) == "Add two numbers."


@pytest.mark.parametrize(
    ("changes", "sections"),
    [
        ({"starter_code": ""}, "They run the program on standard input and read what it prints."),
        (
            {"starter_code": None, "input_output": "{}"},
            "They run the program on standard input and read what it prints.",
        ),
        ({"starter_code": "", "input_output": '{"fn_name": "add"}'}, "They call the function add."),
        (
            {
                "starter_code": "class Solution:\n    def add(self, a, b):\n        ",
                "input_output": '{"fn_name": "add"}',
            },
            "They call the method add.",
        ),
    ],
)
def test_apps_prompt_says_how_it_is_tested(tmp_path, changes, sections):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps(**changes)] * 2)
    starter = (changes["starter_code"] or "").rstrip()
    code = f"### Starter code:\n{starter}\n\n" if starter else ""
    assert raw.prompt(splits.train[0]) == (
        f"### Problem:\nAdd two numbers.\n\n{code}### Tests:\n{sections}\n\n### Response:\n"
    )


def test_published_apps_prompt_is_the_problem_alone(tmp_path):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps()] * 2, apps_prompt="published")
    assert raw.prompt(splits.train[0]) == "### Problem:\nAdd two numbers.\n\n### Response:\n"
    full, _ = raw_of(tmp_path, "codeparrot/apps", [apps()] * 2)
    assert raw.fingerprint() != full.fingerprint()


def test_apps_record_holds_what_grading_needs(tmp_path):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps()] * 2)
    assert raw.record(splits.train[0]) == {
        "prompt": APPS_PROMPT,
        "chosen": "print(1)",
        "question": "Add two numbers.",
        "input_output": {"inputs": ["1 2\n"], "outputs": ["3\n"]},
        "starter_code": "def add(a, b):",
        "difficulty": "introductory",
    }


@pytest.mark.parametrize("solutions", ["", "[]", "not json", "{}", "[null]"])
def test_apps_problem_without_solutions_has_no_answer_to_train_on(tmp_path, solutions):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps(solutions=solutions)] * 2)
    row = splits.train[0]
    assert [raw.chosen(each) for each in raw.expand(row)] == [None]
    assert raw.prompt(row) == APPS_PROMPT


def test_apps_solutions_are_json_with_null_escapes_and_surrogates(tmp_path):
    text = '["a = \\"\\\\/\\" # \\/ \\ud83d\\ude42", "b = \\"\\ud83d\\""]'
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps(solutions=text)] * 2)
    solutions = [raw.chosen(each) for each in raw.expand(splits.train[0])]
    assert solutions == ['a = "\\/" # / \U0001f642', 'b = "\\ud83d"']
    assert all(solution.encode("utf-8") for solution in solutions)


@pytest.mark.parametrize("tests", ["", "not json", "[1]", "9" * 5_000])
def test_apps_tests_that_are_unusable_become_an_empty_object(tmp_path, tests):
    raw, splits = raw_of(tmp_path, "codeparrot/apps", [apps(input_output=tests)] * 2)
    assert raw.record(splits.train[0])["input_output"] == {}

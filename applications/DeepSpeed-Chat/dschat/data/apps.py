"""APPS: programming problems with solutions and tests.

The published prompt is the problem alone, so that a policy must guess whether the tests call a function, which one, or
read what a script prints:

    ### Problem:
    {question}

    ### Response:

By default the prompt says so, with the starter code where there is some:

    ### Problem:
    {question}

    ### Starter code:
    {starter_code}

    ### Tests:
    They call the function {fn_name}. | They run the program on standard input and read what it prints.

    ### Response:
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dschat.code_execution.apps_tests import UnusableTests, read_tests
from dschat.code_execution.long_integers import load_json
from dschat.config.data import DataConfig, PromptStyle, SplitBy
from dschat.data.base import RawDataset, Row, wrapped
from dschat.data.cache import content_key
from dschat.data.sources import Source

_SCRIPT = "They run the program on standard input and read what it prints."


class Apps(RawDataset):
    """Programming problems with solutions and tests; one row a problem, so that no split tears a problem apart."""

    name = "apps"
    hub_name = "codeparrot/apps"
    prompt_columns = ("question",)
    chosen_columns = ("solutions",)
    record_columns = ("input_output",)
    untyped_columns = frozenset({"solutions", "input_output"})
    before_prompt, after_prompt = "### Problem:\n", "\n\n### Response:\n"
    evaluation_splits = ("validation", "test")

    def __init__(
        self,
        source: Source,
        *,
        label: str,
        seed: int,
        split_by: SplitBy = DataConfig.split_by,
        prompt_style: PromptStyle = DataConfig.apps_prompt,
    ) -> None:
        """
        Args:
            source, label, seed, split_by: see `RawDataset`.
            prompt_style: "full" or "published", see the top of this file.
        """
        super().__init__(source, label=label, seed=seed, split_by=split_by)
        self._prompt_style = prompt_style

    def fingerprint(self) -> str:
        """Key of the rows and the prompt's style."""
        return content_key({"rows": super().fingerprint(), "prompt_style": self._prompt_style})

    def expand(self, row: Row) -> Iterator[Row]:
        """The problem with each of its solutions; itself where it has none."""
        solutions = _solutions(row["solutions"])
        if solutions:
            yield from ({**row, "solutions": [solution]} for solution in solutions)
        else:
            yield row

    def prompt(self, row: Row) -> str | None:
        """Problem, what the tests do with the answer, and cue."""
        question = _encodable(row["question"])
        if question is None or self._prompt_style == "published":
            return wrapped(self.before_prompt, question, self.after_prompt)
        starter = _encodable(row.get("starter_code")) or ""
        function = _json_object(row.get("input_output")).get("fn_name")
        kind = "method" if "class Solution" in starter else "function"
        sections = [
            question.rstrip(),
            f"### Starter code:\n{starter.rstrip()}" if starter.strip() else "",
            f"### Tests:\n{f'They call the {kind} {function}.' if function else _SCRIPT}",
        ]
        return wrapped(self.before_prompt, "\n\n".join(filter(None, sections)), self.after_prompt)

    def chosen(self, row: Row) -> str | None:
        """The first solution, None for a problem without one."""
        solutions = _solutions(row["solutions"])
        return solutions[0] if solutions else None

    def record(self, row: Row) -> dict[str, Any]:
        """Adds what grading needs: question, input_output (an object, {} if unusable), starter_code, difficulty."""
        return {
            **super().record(row),
            "question": _encodable(row["question"]),
            "input_output": _json_object(row["input_output"]),
            "starter_code": row.get("starter_code") or "",
            "difficulty": row.get("difficulty") or "",
        }

    def has_tests(self, row: Row) -> bool:
        """Whether the problem's tests can be run; some of the published problems have none."""
        try:
            read_tests(_json_object(row["input_output"]))
        except UnusableTests:
            return False
        return True

    def group(self, row: Row) -> str:
        """The problem."""
        return str(row["question"])


class TinyApps(Apps):
    """The built-in set: small problems in the schema of APPS."""

    built_in = True

    name = "tiny_apps"
    hub_name = "tiny-apps"


def _encodable(text: Any) -> str | None:
    """Text with lone surrogates written as escapes, as no tokenizer or file takes them."""
    return text.encode("utf-8", "backslashreplace").decode() if isinstance(text, str) else None


def _solutions(value: Any) -> list[str]:
    """The solutions of a problem: a list, or its JSON text as on the hub; [] where that is broken."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return []
    return [text for item in value if (text := _encodable(item))] if isinstance(value, list) else []


def _json_object(value: Any) -> dict[str, Any]:
    """An object or its JSON text; {} for anything else."""
    if isinstance(value, str):
        try:
            value = load_json(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, dict) else {}

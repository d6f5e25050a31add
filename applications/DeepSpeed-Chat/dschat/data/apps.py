"""APPS: programming problems with solutions and tests."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from dschat.data.base import RawDataset, Row, wrapped
from dschat.data.splits import Phase


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

    def expand(self, row: Row, phase: Phase) -> Iterator[Row]:
        """In SFT one sample for each solution; elsewhere the problem itself."""
        solutions = _solutions(row["solutions"]) if phase == "sft" else []
        if solutions:
            yield from ({**row, "solutions": [solution]} for solution in solutions)
        else:
            yield row

    def prompt(self, row: Row) -> str | None:
        """The published prompt: problem and cue."""
        return wrapped(self.before_prompt, _encodable(row["question"]), self.after_prompt)

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

    def group(self, row: Row) -> str:
        """The problem."""
        return str(row["question"])


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
            value = json.loads(value)
        except ValueError:
            return {}
    return dict(value) if isinstance(value, dict) else {}

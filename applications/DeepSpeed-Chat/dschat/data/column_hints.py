"""Columns that nearly are what a dataset needs: which one to rename, for the sentence that refuses the data."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Value

_OTHER_NAMES = {
    "prompt": (
        *("prompts", "question", "instruction", "query", "input", "inputs", "problem", "post", "document", "article"),
        *("context", "source", "history"),
    ),
    "chosen": (
        *("response", "completion", "answer", "output", "target", "label", "reply", "summary", "solution", "preferred"),
        *("accepted", "better", "good", "winner", "response_chosen", "answer_chosen"),
    ),
    "rejected": ("dispreferred", "reject", "worse", "bad", "loser", "negative", "response_rejected", "answer_rejected"),
}
"""What others call the columns of `local/jsonfile`, likelier names first."""
_DIALOGUES = ("messages", "conversations", "conversation", "dialogue", "dialog")
_SIMILAR = 0.75


def is_text(feature: Any) -> bool:
    """Whether a column holds text, or nothing but nulls."""
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "null")


def renaming_hint(features: Mapping[str, Any], needed: Sequence[str]) -> str:
    """The renamings that would give the data the columns that it lacks, such as `rename response to chosen; `.

    Args:
        features: columns that there are, and their types.
        needed: columns that a dataset needs, as paths.
    Returns:
        Part of a sentence, up to its semicolon and space; empty where no column comes near.
    """
    wanted = [column.split(".")[0].removesuffix("[]") for column in needed]
    free = {name.lower(): name for name, feature in features.items() if name not in wanted and is_text(feature)}
    renamings = []
    for column in dict.fromkeys(wanted):
        if column in features:
            continue
        found = _nearest(column, list(free))
        if found is not None:
            renamings.append(f"{free.pop(found)} to {column}")
    if renamings:
        return f"rename {' and '.join(renamings)}; "
    dialogue = next((name for name in features if name.lower() in _DIALOGUES), None)
    if dialogue is None:
        return ""
    return f"{dialogue} holds whole dialogues: write the last turn of each as chosen and what is before it as prompt; "


def _nearest(column: str, names: Sequence[str]) -> str | None:
    """The name among some that most likely means a column, None if none does."""
    known = [name for name in (column, *_OTHER_NAMES.get(column, ())) if name in names]
    similar = difflib.get_close_matches(column, names, n=1, cutoff=_SIMILAR)
    longer = [name for name in names if column in name]
    return next(iter([*known, *similar, *longer]), None)

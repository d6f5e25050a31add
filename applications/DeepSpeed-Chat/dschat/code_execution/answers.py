"""The program inside a model's answer. Text only: nothing is parsed or run, so no answer can hurt the caller."""

from __future__ import annotations

import keyword
import re
import textwrap

_FENCED = re.compile(
    r"^[ \t]*(?P<fence>`{3,}+|~{3,}+)[ \t]*(?P<language>[\w+#.-]*)[^\n]*\n(?P<code>.*?)(?:^[ \t]*(?P=fence)[^\n]*$|\Z)",
    re.DOTALL | re.MULTILINE,
)
_PYTHON = {"python", "py", "python3", "py3"}
_LABEL = re.compile(
    r"(?:here|sure|solution|answer|code|program|explanation|response)\b[^=()\[\]]*[:.!]\s*", re.IGNORECASE
)
_TWO_WORDS = re.compile(r"([^\W\d_]+)[,.!']?\s+([^\W\d_]+)")
_STARTS_CODE = re.compile(
    r"import\s+\w|from\s+[\w.]+\s+import\b|(?:async\s+)?def\s+\w+\s*\(|class\s+\w+|@\w|#|try\s*:|\"\"\"|'''"
    r"|(?:if|while|with|for)\b.*:|[\w.,\s\[\]()*]+?[-+*/%|&^]?=[^=]|[\w.]+\("
)
_STATEMENTS = {*keyword.kwlist, *keyword.softkwlist, "print", "exec"}
_OPERATORS = {"and", "or", "not", "in", "if", "else"}


def extract_program(answer: str) -> str:
    """The program that an answer holds.

    Of Markdown code blocks the longest that is labelled Python is taken, else the longest without a label, else the
    longest; a block that the answer's end cuts off counts. Without a block, lines of plain English before the first
    line of code are left out. An answer that is a program already comes back unchanged.

    Args:
        answer: text of a model's answer, without special tokens.
    Returns:
        The program's text; the answer itself where nothing in it looks like a program.
    """
    blocks = [(match["language"].lower(), textwrap.dedent(match["code"])) for match in _FENCED.finditer(answer)]
    if blocks:
        python = [code for language, code in blocks if language in _PYTHON]
        unlabelled = [code for language, code in blocks if not language]
        return max(python or unlabelled or [code for _, code in blocks], key=len)
    return _without_leading_prose(answer)


def _without_leading_prose(answer: str) -> str:
    lines = answer.splitlines(keepends=True)
    first = next((line for line in lines if line.strip()), "")
    if not _is_prose(first):
        return answer
    for number, line in enumerate(lines):
        if _STARTS_CODE.match(line) and not _LABEL.fullmatch(line):
            return "".join(lines[number:])
    return answer


def _is_prose(line: str) -> bool:
    """Whether a line reads as English: a label such as `Solution:`, or two plain words that Python could not follow."""
    if _LABEL.fullmatch(line):
        return True
    words = _TWO_WORDS.match(line)
    if words is None or _STARTS_CODE.match(line):
        return False
    return words[1] not in _STATEMENTS and words[2] not in _OPERATORS

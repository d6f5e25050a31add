"""`pydoc-tldr`: a summarisation dataset that needs no network and ships no data.

It reads the docstrings of the running Python's standard library (sources are parsed, nothing is imported). What follows
a docstring's first line is the post, the module its subreddit, the first line the summary that a human wrote. The
rejected summary is made from real ones: another object's summary, or the same one with its words shuffled, cut short,
or said twice. Rows have the columns of `openai/summarize_from_feedback`, configuration `comparisons`.
"""

from __future__ import annotations

import ast
import hashlib
import logging
import platform
import random
import re
import sysconfig
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset

from dschat.data.cache import cached_folder, code_key, content_key, quiet_datasets
from dschat.errors import UserError

logger = logging.getLogger(__name__)

MIN_PAIRS = 4_800
MAX_POST_WORDS = 60
MAX_POST_CHARACTERS = 480
MAX_SUMMARY_WORDS = 25
MIN_SUMMARY_WORDS = 3
MIN_POST_WORDS = 6
VALIDATION_SHARE = 0.1

_SKIPPED = {
    *("test", "tests", "idle_test", "idlelib", "lib2to3", "turtledemo", "ensurepip"),
    *("site-packages", "dist-packages", "lib-dynload", "__pycache__", "pydoc_data"),
}
_FIRST_SENTENCE = re.compile(r"(.{10,200}?[.!?])\s+(?=[A-Z`'\"])(.+)")


@dataclass(frozen=True, order=True)
class Summarised:
    """A docstring, split into what is summarised and its summary."""

    module: str
    post: str
    summary: str


@dataclass(frozen=True)
class BuiltinSource:
    """Rows made from the standard library's docstrings, kept in the cache folder."""

    seed: int
    cache_dir: Path

    def splits(self, text_columns: Sequence[str]) -> dict[str, Dataset]:
        """Train and validation rows; no docstring and no summary occurs in both.

        Raises:
            UserError: this Python has no sources, or too few docstrings.
        """
        folder = cached_folder(self.cache_dir, f"pydoc-tldr_{self.fingerprint()}", self._build)
        return {name: datasets.load_from_disk(str(folder / name)) for name in ("train", "validation")}

    def fingerprint(self) -> str:
        """Key of the Python version, its sources' names and sizes, the seed and this code."""
        sources = hashlib.sha256()
        for path, module in standard_library_sources():
            sources.update(f"{module}:{path.stat().st_size}\n".encode())
        return content_key(
            {
                "python": platform.python_version(),
                "sources": sources.hexdigest(),
                "seed": self.seed,
                "code": code_key(),
            }
        )

    def _build(self, folder: Path) -> None:
        started = time.monotonic()
        splits = build_rows(collect_docstrings(), seed=self.seed)
        with quiet_datasets():
            for name, rows in splits.items():
                Dataset.from_list(rows).save_to_disk(str(folder / name))
        logger.info(
            "built pydoc-tldr: %d train and %d validation pairs from the docstrings of Python %s in %.1f s",
            len(splits["train"]),
            len(splits["validation"]),
            platform.python_version(),
            time.monotonic() - started,
        )


def standard_library_sources() -> Iterator[tuple[Path, str]]:
    """Yield (source file, dotted module name) of the standard library, without its tests and tools, in sorted order."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if not any(part in _SKIPPED or part.startswith("config-") for part in parts):
            yield path, ".".join(part for part in parts if part != "__init__")


def collect_docstrings() -> list[Summarised]:
    """All usable docstrings of the standard library, sorted, no post and no summary twice.

    Raises:
        UserError: there are none.
    """
    posts: dict[str, Summarised] = {}
    summaries: set[str] = set()
    for path, module in standard_library_sources():
        for docstring in _docstrings(path):
            item = _split_docstring(docstring, module)
            if item is not None and item.post not in posts and item.summary not in summaries:
                posts[item.post] = item
                summaries.add(item.summary)
    if not posts:
        raise UserError(
            f"pydoc-tldr found no docstrings under {sysconfig.get_path('stdlib')}; use a Python with its sources, or "
            "another --data_path"
        )
    return sorted(posts.values())


def build_rows(items: Sequence[Summarised], *, seed: int) -> dict[str, list[dict[str, Any]]]:
    """Comparisons in the schema of `openai/summarize_from_feedback`.

    Args:
        items: at least 20, different from each other.
        seed: of the division, the rejected summaries and their side.
    Returns:
        "train" and "validation" rows. Where there are fewer than MIN_PAIRS items, a post has several rows with
        different rejected summaries, all in one split.
    """
    if len(items) < 20:
        raise UserError(f"pydoc-tldr found {len(items)} docstrings, too few; use a Python with its sources")
    generator = random.Random(seed)
    shuffled = generator.sample(list(items), len(items))
    held_out = round(len(shuffled) * VALIDATION_SHARE)
    rounds = -(-MIN_PAIRS // len(shuffled))
    splits = {"train": shuffled[held_out:], "validation": shuffled[:held_out]}
    return {
        name: [
            _row(item, _rejected(item, members, generator), name, generator) for _ in range(rounds) for item in members
        ]
        for name, members in splits.items()
    }


def _row(item: Summarised, rejected: tuple[str, str], split: str, generator: random.Random) -> dict[str, Any]:
    """One comparison; summaries begin with a space, as on the hub."""
    text, policy = rejected
    summaries = [
        {"text": f" {item.summary}", "policy": "docstring", "note": None},
        {"text": f" {text}", "policy": policy, "note": None},
    ]
    choice = generator.randrange(2)
    return {
        "info": {
            "id": hashlib.sha256(item.post.encode()).hexdigest()[:12],
            "post": item.post,
            "title": item.module,
            "subreddit": item.module.split(".")[0],
            "site": None,
            "article": None,
        },
        "summaries": summaries if choice == 0 else summaries[::-1],
        "choice": choice,
        "worker": "pydoc",
        "batch": "pydoc",
        "split": "train" if split == "train" else "valid1",
        "extra": {"confidence": None},
    }


def _rejected(item: Summarised, others: Sequence[Summarised], generator: random.Random) -> tuple[str, str]:
    """A worse summary and how it was made; never equal to the real one."""
    words = item.summary.split()
    while True:
        policy = generator.choice(("other", "shuffled", "cut", "repeated"))
        if policy == "other":
            text = generator.choice(others).summary
        elif policy == "shuffled":
            text = " ".join(generator.sample(words, len(words)))
        elif policy == "cut":
            text = " ".join(words[: max(1, len(words) // 2)])
        else:
            text = f"{item.summary} {item.summary}"
        if text != item.summary:
            return text, policy


def _docstrings(path: Path) -> Iterator[str]:
    """The docstrings of a module and of the classes and functions in it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # old escapes in strings; not ours to mend
            pending: list[Any] = [ast.parse(path.read_bytes())]
    except (SyntaxError, ValueError):
        return
    while pending:
        node = pending.pop()
        docstring = ast.get_docstring(node)
        if docstring:
            yield docstring
        pending.extend(
            child for child in node.body if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        )


def _split_docstring(docstring: str, module: str) -> Summarised | None:
    """First line and the rest; the first sentence and the rest where the first paragraph is long; None if unusable."""
    head, _, body = docstring.strip().partition("\n\n")
    summary = " ".join(head.split())
    if not body.strip() or len(summary.split()) > MAX_SUMMARY_WORDS:
        match = _FIRST_SENTENCE.match(" ".join(docstring.split()))
        if match is None:
            return None
        summary, body = match.groups()
    words = body.split()
    if not MIN_SUMMARY_WORDS <= len(summary.split()) <= MAX_SUMMARY_WORDS or ">>>" in summary:
        return None
    if len(words) < MIN_POST_WORDS:
        return None
    post = " ".join(words[:MAX_POST_WORDS])
    if len(post) > MAX_POST_CHARACTERS:
        post = post[:MAX_POST_CHARACTERS].rpartition(" ")[0]
    return Summarised(module=module, post=post, summary=summary) if post else None

"""Every path, program and flag that the documents name is there."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.test_recipes import RECIPES
from tests.launch import REPOSITORY

PIPELINE = REPOSITORY / "applications/DeepSpeed-Chat"
PACKAGE = PIPELINE / "dschat"
SCRIPTS = REPOSITORY / "scripts"
FOLDERS = (
    PACKAGE,
    PIPELINE / "training",
    *(REPOSITORY / name for name in ("docs", "evaluation", "inference", "scripts", "tests")),
)
DOCUMENTS = (
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md", "BENCHMARKS.md")),
    PIPELINE / "README.md",
    *sorted((REPOSITORY / "docs").glob("*.md")),
)
MADE_BY_THE_READER = {"brevity.py", "comparison.md", "program.py", "report.html"}
SOURCES = ("scripts/", "tests/", "docs/", "inference/", "evaluation/", "applications/", "training/", "dschat/")
"""Beginnings of paths that can only be files of this repository."""
FILE = re.compile(r"[\w./*-]*\w\.(?:py|sh|md|html|toml|lock)")
MODULE = re.compile(r"\bdschat(?:\.\w+)+")


@cache
def files() -> list[str]:
    """All files that a document may name, from the repository's root."""
    found = [path for folder in FOLDERS for path in folder.rglob("*") if path.is_file()]
    found += [path for folder in (REPOSITORY, PIPELINE) for path in folder.iterdir() if path.is_file()]
    return [str(path.relative_to(REPOSITORY)) for path in found]


def read(document: Path) -> str:
    """A document without the recipes, whose files are made by following them, as another test does."""
    sections = re.split(r"^(?=## )", document.read_text(), flags=re.MULTILINE)
    recipes = tuple(f"## Adding a {title}\n" for title in RECIPES)
    return "".join(section for section in sections if not section.startswith(recipes))


def is_there(name: str, document: Path) -> bool:
    """Whether a name is a path from one of the places that documents speak from, or the end of some file's path."""
    bases = (REPOSITORY, PIPELINE, PACKAGE, REPOSITORY / "tests", document.parent)
    if any((base / name).exists() for base in bases) or name in MADE_BY_THE_READER:
        return True
    pattern = re.compile("(?:.*/)?" + re.escape(name).replace(r"\*", "[^/]*"))
    return any(pattern.fullmatch(file) for file in files())


def blocks(text: str) -> list[str]:
    """Fenced and indented blocks of a document, long lines joined."""
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"(?:^    \S.*\n)+", text, flags=re.MULTILINE)
    return [re.sub(r"\\\n\s*", " ", block) for block in (*fenced, *indented)]


def inline_code(text: str) -> list[str]:
    """What stands between backticks in the running text."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_file_that_is_named_exists(document: Path) -> None:
    text = read(document)
    named = {name for code in inline_code(text) for name in FILE.findall(code)}
    named |= {name for block in blocks(text) for name in FILE.findall(block)}
    named |= {code for code in inline_code(text) if code.startswith(SOURCES) and " " not in code and "<" not in code}
    assert [name for name in sorted(named) if not is_there(name.lstrip("./"), document)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_module_that_is_named_exists(document: Path) -> None:
    for name in MODULE.findall(read(document)):
        if name.endswith("NAME"):
            continue
        # the last part may be something in the module
        parts = name.split(".")[1:]
        places = [PACKAGE.joinpath(*parts[:count]) for count in (len(parts), len(parts) - 1) if count]
        assert any(place.is_dir() or place.with_suffix(".py").is_file() for place in places), name


def commands(text: str) -> list[tuple[str, list[str]]]:
    """Programs of this repository that a document starts, each with its flags."""
    lines = [line.strip() for block in blocks(text) for line in block.splitlines()] + inline_code(text)
    found = []
    for line in lines:
        started = re.match(r"(?:\S*/)?(?:python|bash) (?:-m )?(\S+)(.*)", line)
        if started and not started[1].startswith("-"):
            words = shlex.split(started[2].partition(" #")[0], comments=False) if started[2].count("'") % 2 == 0 else []
            found.append((started[1], [word.partition("=")[0] for word in words if word.startswith("--")]))
    return [(program, flags) for program, flags in found if program not in ("venv", "pip", "pytest")]


@cache
def sources_of(program: str) -> str:
    """The texts in which a program's flags are defined: its own, and those of the modules that it may import."""
    path = REPOSITORY / program
    own = [path, *path.parent.glob("*.py"), *SCRIPTS.glob(f"{path.stem}/*.py")] if path.suffix == ".py" else []
    if program in ("scripts/quickstart.sh", "scripts/quickstart_apps.sh"):
        own += (SCRIPTS / "quickstart").glob("*options.py")
    own += [path for name in ("answering", "judging", "tools") for path in (PACKAGE / name).glob("*.py")]
    return "\n".join(path.read_text() for path in own)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_every_command_is_one_that_can_be_given(document: Path) -> None:
    for program, flags in commands(document.read_text()):
        if program.startswith("dschat."):
            assert (PIPELINE / f"{program.replace('.', '/')}.py").is_file(), program
            continue
        assert is_there(program, document), program
        unknown = [flag for flag in flags if f'"{flag}"' not in sources_of(program)]
        assert unknown == [], (program, unknown)


def test_the_documents_start_programs_of_every_kind() -> None:
    """What the test above looks at is there to be looked at."""
    programs = {program for document in DOCUMENTS for program, _ in commands(document.read_text())}
    for program in (
        "scripts/quickstart.sh", "scripts/test.sh", "scripts/soak.py", "scripts/compare_regularizers.py",
        "scripts/bench/potentials.py", "inference/inference_apps.py", "evaluation/gpt4-eval.py",
    ):  # fmt: skip
        assert program in programs

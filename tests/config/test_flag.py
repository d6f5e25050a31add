"""Fields that are flags: what `flag` makes of them, and that each is defined once, explained, and read somewhere."""

from __future__ import annotations

import ast
import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest

import dschat
from dschat.config.flag import Section, flag, flags_of
from dschat.config.retired import RETIRED_FLAGS
from tests.config.commands import section_classes

PACKAGE = Path(dschat.__file__).parent


@dataclass(frozen=True)
class Example(Section):
    name: str = flag(help="Required.")
    share: float = flag(0.5, at_least=0, below=1, advice="half is usual", help="Share.")
    words: list[str] = flag(["a"], needs="share", help="Words.")


def test_a_field_states_its_default_bound_and_help() -> None:
    assert Example("x") == Example("x", 0.5, ["a"])
    described = flags_of(Example)["share"]
    assert (described.at_least, described.above, described.at_most, described.below) == (0, None, None, 1)
    assert (described.help, described.advice, described.needs) == ("Share.", "half is usual", ())
    assert flags_of(Example("x"))["words"].needs == ("share",)


def test_a_field_without_a_default_is_required() -> None:
    with pytest.raises(TypeError, match="name"):
        Example()


def test_a_list_is_no_other_sections_list() -> None:
    first, second = Example("x"), Example("y")
    first.words.append("b")
    assert second.words == Example("z").words == ["a"]


def test_no_flag_is_defined_twice() -> None:
    names = Counter(field.name for section in section_classes() for field in dataclasses.fields(section))
    assert [name for name, count in names.items() if count > 1] == []
    assert set(names).isdisjoint(RETIRED_FLAGS)
    assert len(names) > 100


def test_every_flag_is_explained_and_read_somewhere() -> None:
    read = set()
    for path in PACKAGE.rglob("*.py"):
        tree: ast.AST = ast.parse(path.read_text())
        # what fields are named in their own definitions does not count
        methods = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
        for part in methods if path.parent.name == "config" else [tree]:
            read |= {n.attr for n in ast.walk(part) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)}
    for section in section_classes():
        assert section.__doc__
        assert section.group
        for name, described in flags_of(section).items():
            assert described.help, f"{section.__name__}.{name} has no help"
            assert name in read, f"nothing reads {section.__name__}.{name}"

"""From command-line words and a YAML file to the settings of a step."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, TypeVar, get_args, get_origin, get_type_hints

from dschat.config.bounds import value_types
from dschat.config.flag import Flag, Section, defaults_of, flags_of
from dschat.config.retired import reject_unknown_flags
from dschat.errors import UserError

Group = argparse._ArgumentGroup

TRUE = ("yes", "true", "t", "y", "1")
FALSE = ("no", "false", "f", "n", "0")
YAML_VALUE_ERRORS = (OSError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML lets through for dates such as 2026-99-99, tags such as `!!int x`, and thousands of brackets."""


class Step(Protocol):
    """Settings of a step: a dataclass of sections."""

    def check(self, given: frozenset[str]) -> None:
        """Raise UserError for the first setting that cannot work, or that was given and has no effect."""
        ...


AnyStep = TypeVar("AnyStep", bound=Step)


def parse_step(
    step: type[AnyStep],
    arguments: Sequence[str],
    *,
    variants: Mapping[str, type[Section]] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> AnyStep:
    """Read and check the settings of a step.

    Args:
        step: the dataclass to fill.
        arguments: the words after the program's name.
        variants: the class of a section whose type selects a variant, by the section's name.
        defaults: values of flags that start elsewhere in this step than their fields say.
    Raises:
        UserError: an unknown flag, or a value that cannot work.
    """
    chosen: dict[str, type[Section]] = {**get_type_hints(step), **(variants or {})}
    parser = _OneSentenceParser(description=step.__doc__, allow_abbrev=False)
    parser.add_argument(
        "--config", default=argparse.SUPPRESS, help="YAML file of flag: value lines; the command line overrides it."
    )
    groups: dict[str, Group] = {}
    for section in chosen.values():
        if section.group not in groups:
            groups[section.group] = parser.add_argument_group(section.group)
        add_flags(groups[section.group], section, defaults=defaults)
    namespace, remaining = parser.parse_known_args([*_yaml_words(arguments), *arguments])
    given = vars(namespace)
    known = sorted(name for section in chosen.values() for name in flags_of(section))
    reject_unknown_flags(remaining, known)
    values = {**(defaults or {}), **given}
    config = step(**{name: section_from(section, values) for name, section in chosen.items()})
    config.check(frozenset(given))
    return config


def add_flags(
    group: Group, section: type[Section], *names: str, defaults: Mapping[str, Any] | None = None, hyphens: bool = False
) -> None:
    """Give a group of arguments the flags of a section. What is not on the command line leaves no value behind.

    Args:
        group: gets them.
        section: its fields are the flags.
        names: of the fields that are wanted; none for all.
        defaults: values to show that are not the fields' own.
        hyphens: whether --help shows `--test-time-limit` first; both spellings work.
    """
    types, starts = value_types(section), defaults_of(section) | dict(defaults or {})
    for name, described in flags_of(section).items():
        if not names or name in names:
            _add_flag(group, name, types[name], described, starts[name], hyphens=hyphens)


def section_from(section: type[Section], values: Mapping[str, Any]) -> Any:
    """A section with those of the values that are its fields; the others hold their defaults."""
    return section(**{name: values[name] for name in flags_of(section) if name in values})


def _add_flag(group: Group, name: str, kind: Any, flag: Flag, default: Any, *, hyphens: bool) -> None:
    spellings = dict.fromkeys(spelled for each in (name, *flag.aliases) for spelled in _spellings(each, hyphens))
    group.add_argument(
        *spellings,
        dest=name,
        default=argparse.SUPPRESS,
        required=default is dataclasses.MISSING,
        help=(flag.help + _shown_default(default)).replace("%", "%%"),
        **_reading(kind),
    )
    if kind is bool and default is True:
        group.add_argument(
            f"--no_{name}", f"--no-{name.replace('_', '-')}",
            dest=name, action="store_false", default=argparse.SUPPRESS, help=argparse.SUPPRESS,
        )  # fmt: skip


def _shown_default(default: Any) -> str:
    """The end of a help text; nothing where the flag is required, left out or off by default."""
    if default is dataclasses.MISSING or default is None or default is False or default == []:
        return ""
    return f" (default: {' '.join(default) if isinstance(default, list) else default})"


def _spellings(name: str, hyphens: bool) -> list[str]:
    spellings = [f"--{name}", f"--{name.replace('_', '-')}"]
    return spellings[::-1] if hyphens else spellings


def _reading(kind: Any) -> dict[str, Any]:
    """How argparse reads words as a value of this type."""
    if kind is bool:
        return {"type": _truth, "nargs": "?", "const": True, "metavar": "true|false"}
    if get_origin(kind) is list:
        return {"type": get_args(kind)[0], "nargs": "+"}
    if get_origin(kind) is Literal:
        choices = get_args(kind)
        if isinstance(choices[0], str):
            return {"choices": choices}
        return {"type": int, "metavar": f"{{{','.join(map(str, choices))}}}"}  # the check of bounds names the choices
    return {"type": kind}


def _truth(word: str) -> bool:
    if word.lower() in TRUE:
        return True
    if word.lower() in FALSE:
        return False
    raise argparse.ArgumentTypeError(f"{word!r} is neither true nor false")


class _OneSentenceParser(argparse.ArgumentParser):
    """A parser whose complaints are UserErrors."""

    def error(self, message: str) -> NoReturn:
        sentence = " ".join(message.split())  # a value may hold line breaks
        raise UserError(sentence.replace("the following arguments are required", "missing"))


def _yaml_words(arguments: Sequence[str]) -> list[str]:
    """The YAML file's settings as command-line words, to be read before the real ones."""
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument("--config")
    found = finder.parse_known_args(list(arguments))[0].config
    if found is None:
        return []
    path = Path(found)
    if not path.is_file():
        raise UserError(f"--config {found}: there is no such file ({path.absolute()})")
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, *YAML_VALUE_ERRORS) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {found} is not readable as YAML: {reason}") from error
    if not isinstance(settings, dict):
        raise UserError(f"--config {found} must hold lines such as 'learning_rate: 1.0e-5', one per flag")
    words: list[str] = []
    for name, value in settings.items():
        if value is None:
            continue
        values = value if isinstance(value, list) else [value]
        words += [f"--{name}", *(str(v) for v in values)] if values else []
    return words

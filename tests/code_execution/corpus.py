"""The programs that the sandbox is tried with, each a cell of a file in programs/.

A cell starts with `# %% name`. Comment lines after that say what is expected:

    expect: ok time_limit     the statuses it may end with; ok where nothing is said
    output: 6\\n               what it must print or return, with escapes as in Python; for honest programs
    stdin: 1 2\\n              its input
    call: f [1, 2]            the function to call and its arguments; else it runs as a script
    cpu_seconds: 0.3          its limits
    memory_mebibytes: 256
    after: print(1)           a program to run first, in the same sandbox
    on: bwrap                 the only rung it runs on
    machine: x86_64           the only kind of machine it runs on
    needs: numpy              a module without which it is left out
    python: 3.11              the only version of Python it is for
    teeth                     it must commit a breach where there is no sandbox, which shows that the checks see one

A hostile program prints "breach" where something works that must not; what it cannot see itself is checked from
outside, see world.py.
"""

from __future__ import annotations

import ast
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from dschat.code_execution.records import MEBIBYTE, Limits

PROGRAMS = Path(__file__).parent / "programs"
HOSTILE = "files secrets network processes signals memory endless output calls".split()

_CELL = re.compile(r"^# %% (\w+)\n", re.MULTILINE)
_HEADERS = "expect output stdin call cpu_seconds memory_mebibytes after on machine needs python teeth".split()
_HEADER = re.compile(rf"# ({'|'.join(_HEADERS)})(?:: (.*))?")
_LONG_TEXTS = {"600000 characters": "x" * 599_999 + "\n", "200000 numbers": "123456 " * 200_000}


@dataclass(frozen=True)
class Program:
    """One cell."""

    name: str
    text: str
    headers: dict[str, str]

    @property
    def expected(self) -> list[str]:
        """The statuses it may end with."""
        return self.headers.get("expect", "ok").split()

    @property
    def output(self) -> str | None:
        """What it must print or return; None where only a breach would matter."""
        return self._text("output")

    @property
    def stdin(self) -> str:
        """Its input."""
        return self._text("stdin") or ""

    @property
    def function(self) -> str | None:
        """The function to call, None for a script."""
        return self.headers["call"].split(maxsplit=1)[0] if "call" in self.headers else None

    @property
    def arguments(self) -> str:
        """A JSON list."""
        return self.headers["call"].split(maxsplit=1)[1] if "call" in self.headers else "[]"

    @property
    def limits(self) -> Limits:
        """What it may use."""
        memory = int(self.headers.get("memory_mebibytes", "1024"))
        return Limits(cpu_seconds=float(self.headers.get("cpu_seconds", "2")), memory_bytes=memory * MEBIBYTE)

    def runs_on(self, rung: str, *, numpy: bool) -> bool:
        """Whether it makes sense on a rung of this machine."""
        return (
            self.headers.get("on", rung) == rung
            and self.headers.get("machine", platform.machine()) == platform.machine()
            and f"{sys.version_info.major}.{sys.version_info.minor}".startswith(self.headers.get("python", ""))
            and (numpy or self.headers.get("needs") != "numpy")
        )

    def _text(self, header: str) -> str | None:
        text = self.headers.get(header)
        if text is None or text in _LONG_TEXTS:
            return _LONG_TEXTS.get(text or "")
        if self.function is not None and header == "output":
            return text  # JSON has its own escapes
        return ast.literal_eval('"' + text.replace('"', '\\"') + '"')


def load(*files: str) -> dict[str, Program]:
    """The programs of some files, by name."""
    programs: dict[str, Program] = {}
    for file in files:
        parts = _CELL.split((PROGRAMS / f"{file}.py").read_text())
        for name, body in zip(parts[1::2], parts[2::2], strict=True):
            assert name not in programs, f"two programs are called {name}"
            lines = body.splitlines(keepends=True)
            headers = {}
            while match := _HEADER.fullmatch(lines[0].rstrip("\n")):
                headers[match[1]] = match[2] or ""
                lines.pop(0)
            programs[name] = Program(name, "".join(lines), headers)
    return programs

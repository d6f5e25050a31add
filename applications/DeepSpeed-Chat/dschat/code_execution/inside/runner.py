"""Runs one program in a child that is locked in already, and reports how it ended."""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from dschat.code_execution.inside.protocol import (
    COMPILE_ERROR,
    DONE,
    JOB,
    MAX_MESSAGE_BYTES,
    MEMORY_ERROR,
    NO_FUNCTION,
    NOISE,
    OUTPUT,
    REPORT,
    RESULT,
    RUNNING,
    RUNTIME_ERROR,
    STDIN,
)

_SCRIPT_NAME = "__main__"
_CALLED_NAME = "solution"
"""Of a program whose function is called: its main guard must not run."""
_FRAMES_OF_OURS = 20
"""Stack frames between the interpreter's start and the program, at most."""
_RESERVE_BYTES = 4 * 2**20
"""Of address space, for the report of a program that has used up its own."""


def run_job(preamble: dict[str, object]) -> NoReturn:
    """Run the job that waits at the JOB descriptor; never returns, whatever the program does."""
    with open(JOB, encoding="utf-8") as file:
        job = json.load(file)
    arguments = json.loads(job["arguments"])
    if not isinstance(arguments, list):
        raise TypeError("the arguments of a call must be a JSON list")
    if job["function"] is not None:
        os.dup2(OUTPUT, RESULT)
        os.dup2(NOISE, OUTPUT)
    _open_standard_streams()
    sys.setrecursionlimit(sys.getrecursionlimit() + _FRAMES_OF_OURS)
    encode = json.JSONEncoder(default=_plain).encode
    reserve = bytes(_RESERVE_BYTES)  # which touches no memory, unlike bytearray
    os.write(REPORT, RUNNING)
    try:
        code, message = _run(job["program"], job["function"], arguments, preamble, encode)
    except BaseException as error:  # whatever a program raises is its verdict, not a fault of ours
        del reserve
        code, message = MEMORY_ERROR if isinstance(error, MemoryError) else RUNTIME_ERROR, _last_line(error)
    _finish(code, message)


def _run(
    program: str, function: str | None, arguments: list[Any], preamble: dict[str, object], encode: Callable[[Any], str]
) -> tuple[bytes, str]:
    try:
        code = compile(program, "program.py", "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return COMPILE_ERROR, _last_line(error)
    module = types.ModuleType(_SCRIPT_NAME if function is None else _CALLED_NAME)
    module.__dict__.update(preamble, __file__="program.py")
    sys.modules[module.__name__] = module
    sys.argv = ["program.py"]
    if function is None:
        with contextlib.suppress(SystemExit):
            exec(code, module.__dict__)
        _end_like_an_interpreter(module)
        return DONE, ""
    exec(code, module.__dict__)
    called = _find(module, function)
    if called is None:
        return NO_FUNCTION, f"no function {function}"
    _write_all(RESULT, encode(called(*arguments)).encode("ascii"))
    return DONE, ""


def _find(module: types.ModuleType, function: str) -> Callable[..., Any] | None:
    """The function at top level, or a method of an instance of Solution."""
    if not hasattr(module, function) and hasattr(module, "Solution"):
        module = module.Solution()
    return getattr(module, function, None)


def _plain(value: Any) -> Any:
    """A numpy scalar or array as Python's own numbers and lists; TypeError for what JSON does not know."""
    if type(value).__module__ == "numpy":
        return value.tolist()
    raise TypeError(f"does not return JSON: {type(value).__name__}")


def _open_standard_streams() -> None:
    """Fresh text streams on the child's descriptors: the zygote's own have looked at other files."""
    reader = io.BufferedReader(io.FileIO(STDIN, "r", closefd=False))
    writer, noise = (io.BufferedWriter(io.FileIO(number, "w", closefd=False)) for number in (OUTPUT, NOISE))
    sys.stdin = io.TextIOWrapper(reader, encoding="utf-8", errors="surrogateescape")
    sys.stdout = io.TextIOWrapper(writer, encoding="utf-8", errors="surrogateescape", newline="\n")
    sys.stderr = io.TextIOWrapper(noise, encoding="utf-8", errors="backslashreplace", newline="\n", write_through=True)
    # as after the start of an interpreter; they are final to type checkers alone
    vars(sys).update(__stdin__=sys.stdin, __stdout__=sys.stdout, __stderr__=sys.stderr)


def _end_like_an_interpreter(module: types.ModuleType) -> None:
    """Wait for threads, run exit handlers, write out what is buffered, in sys.stdout or in files the program opened."""
    threading._shutdown()  # type: ignore[attr-defined]  # what the interpreter itself calls at its end
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.__stdout__):
        with contextlib.suppress(Exception):  # closed, or replaced by the program's own; the interpreter goes on too
            stream.flush()  # type: ignore[union-attr]  # None is an exception like others here
    module.__dict__.clear()


def _last_line(error: BaseException) -> str:
    """The last line of the error as a traceback would show it."""
    try:
        lines = traceback.format_exception_only(type(error), error)[-1].strip().splitlines()
        return lines[-1] if lines else type(error).__name__
    except BaseException:  # the exception is the program's own, its text may be anything
        return type(error).__name__


def _finish(code: bytes, message: str) -> NoReturn:
    os.write(REPORT, code + message.encode("utf-8", "replace")[:MAX_MESSAGE_BYTES])
    os._exit(0)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

"""Runs one program in a child that is locked in already, and reports how it ended."""

from __future__ import annotations

import atexit
import builtins
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
_FILE_NAME = "program.py"
_FRAMES_OF_OURS = 20
"""Stack frames between the interpreter's start and the program, at most."""
_RESERVE_BYTES = 4 * 2**20
"""Of address space, for the report of a program that has used up its own."""


def run_job(preamble: dict[str, object]) -> NoReturn:
    """Run the job that waits at the JOB descriptor; never returns, whatever the program does."""
    # contest problems print and read longer numbers than Python's 4,300 digits; CPU time and output bound them here
    sys.set_int_max_str_digits(0)
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
    # a script lies in the working folder: its whole path is known to itself and to tracebacks, the short name to argv
    file = os.path.abspath(_FILE_NAME)
    try:
        # from bytes, as from a file: a byte order mark and a line that names the encoding count
        code = compile(program.encode(), file, "exec", dont_inherit=True)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError) as error:
        return COMPILE_ERROR, _last_line(error)
    module = types.ModuleType(_SCRIPT_NAME if function is None else _CALLED_NAME)
    module.__dict__.update(preamble, __builtins__=builtins, __file__=file, __cached__=None)
    sys.modules[module.__name__] = module
    sys.argv, sys.orig_argv = [_FILE_NAME], [sys.executable, _FILE_NAME]
    sys.path[:0] = [os.path.dirname(file)]
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
    """Fresh text streams on the child's descriptors: the zygote's own have looked at other files.

    They are made as the interpreter makes its own, see create_stdio in CPython's pylifecycle.c.
    """
    for number, name, mode, errors in (
        (STDIN, "stdin", "r", "surrogateescape"),
        (OUTPUT, "stdout", "w", "surrogateescape"),
        (NOISE, "stderr", "w", "backslashreplace"),
    ):
        buffer = os.fdopen(number, mode + "b", closefd=False)
        buffer.raw.name = f"<{name}>"  # type: ignore[attr-defined]  # a number so far
        # no universal newlines: an interpreter leaves "\r\n" as it is, in input() too
        stream = io.TextIOWrapper(buffer, encoding="utf-8", errors=errors, newline="\n", line_buffering=number == NOISE)
        stream.mode = mode  # type: ignore[misc]
        # as after the start of an interpreter; __stdin__ and the like are final to type checkers alone
        vars(sys).update({name: stream, f"__{name}__": stream})


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

"""Honest programs print in the sandbox what `python program.py < input` prints: the real thing is the oracle."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from dschat.code_execution.python_files import interpreter
from dschat.code_execution.sandbox import Job, Limits, Sandbox, Status, open_sandbox

ENVIRONMENT = {
    "LANG": "C.UTF-8",
    "PYTHONHASHSEED": "0",
    "PYTHONINTMAXSTRDIGITS": "0",  # APPS is older than the limit of 4,300 digits; its tests know none
}
LIMITS = Limits(cpu_seconds=8.0)
DIGITS = "9" * 10_000

STREAMS = {
    f"{attribute} of the standard streams": f"import sys\nfor s in (sys.stdin, sys.stdout, sys.stderr): print({code})"
    for attribute, code in {
        "name": "s.name",
        "mode": "s.mode",
        "encoding": "s.encoding",
        "errors": "s.errors",
        "newlines": "s.newlines",
        "fileno": "s.fileno()",
        "isatty": "s.isatty()",
        "line_buffering": "s.line_buffering, s.write_through",
        "readable": "s.readable(), s.writable(), s.closed",
        "buffer": "s.buffer, s.buffer.name, s.buffer.mode",
        "raw": "s.buffer.raw.name, s.buffer.raw.mode, s.buffer.raw.closefd, s.buffer.raw.fileno()",
        "repr": "s",
        "identity": "s is getattr(sys, '__' + s.name[1:-1] + '__')",
    }.items()
}
IMPORTS = {
    "optional import": "for name in ('sortedcontainers', 'torch', 'yaml', 'dschat_training', 'inference', 'scripts'):\n"
    "    try:\n        __import__(name)\n    except ImportError as e:\n        print(type(e).__name__, e)",
    "optional import from a package": "try:\n    from sortedcontainers import SortedList\nexcept ImportError:\n"
    "    print('without')",
    "find_spec": "import importlib.util\nprint(importlib.util.find_spec('sortedcontainers'))",
}
PROGRAMS = STREAMS | IMPORTS | {
    "seekable input": "import sys\nprint(sys.stdin.seekable(), sys.stdin.read(1), sys.stdin.seek(0), sys.stdin.read())",
    "fast input by mode": (
        "import os, sys\nfrom io import BytesIO, IOBase\nclass Fast(IOBase):\n    def __init__(self, file):\n"
        "        self._fd = file.fileno()\n        self.buffer = BytesIO()\n"
        "        self.writable = 'x' in file.mode or 'r' not in file.mode\n    def readline(self):\n"
        "        return os.read(self._fd, os.fstat(self._fd).st_size)\nprint(Fast(sys.stdin).readline())"
    ),
    "reconfigure": "import sys\nsys.stdin.reconfigure(encoding='latin-1')\nsys.stdout.reconfigure(line_buffering=True, "
    "encoding='utf-16-le')\nprint(ascii(input()), sys.stdout.line_buffering)",
    "carriage returns": "import sys\nprint(ascii(input()), ascii(sys.stdin.readline()), ascii(sys.stdin.read()))",
    "lines of the input": "import sys\nprint([ascii(line) for line in sys.stdin])",
    "bytes that are no UTF-8": "import sys\nsys.stdout.write(input() + '\\udcff')",
    "open(0)": "with open(0) as f: print(f.encoding, ascii(f.read()))",
    "open(0, newline='')": "print(ascii(open(0, newline='').read()))",
    "open(1, 'w')": "f = open(1, 'w')\nf.write('é' + f.encoding)",
    "os.read(0)": "import os\nprint(os.read(0, 3), os.read(0, 10**6), os.read(0, 1))",
    "os.fdopen": "import os\nprint(os.fdopen(0, 'rb').read())",
    "stdin.buffer": "import sys\nprint(sys.stdin.buffer.readline(), sys.stdin.buffer.peek(3), sys.stdin.buffer.read())",
    "bytes after text": "import sys\nprint('a', end='')\nsys.stdout.flush()\nsys.stdout.buffer.write(b'b')",
    "detached": "import sys\nraw = sys.stdin.detach()\nprint(raw.read())",
    "closed input": "import sys\nsys.stdin.close()\nprint('ok')",
    "redirected": "import io, sys\nsys.stdin = io.StringIO('7')\nprint(input())\nsys.stdin = sys.__stdin__\n"
    "print(input())",
    "arguments": "import os, sys\nprint(sys.argv, len(sys.orig_argv), sys.orig_argv[-1])",
    "file": "import os, sys\nprint(os.path.basename(__file__), os.path.abspath(sys.argv[0]) == __file__)",
    "search path": "import os, sys\nprint(sys.path[0] == os.getcwd() == os.path.dirname(__file__))",
    "main module": "import __main__\nprint(__name__, __doc__, __package__, __spec__, __cached__, __main__.__name__)",
    "docstring": "'''Doc.'''\nprint(__doc__)",
    "builtins": "print(type(__builtins__), __builtins__.len('abc'))",
    "flags": (
        "import sys\nfor name in dir(sys.flags):\n"
        "    if type(getattr(sys.flags, name)) in (int, bool) and name not in ('no_site', 'int_max_str_digits'):\n"
        "        print(name, getattr(sys.flags, name))\nprint(sys.warnoptions, sys._xoptions)"
    ),
    "signals": (
        "import signal\nfor name in ('SIGPIPE', 'SIGINT', 'SIGXFSZ', 'SIGTERM', 'SIGALRM', 'SIGSEGV'):\n"
        "    print(name, signal.getsignal(getattr(signal, name)))"
    ),
    "SIGPIPE as in C": "from signal import SIG_DFL, SIGPIPE, signal\nprint(signal(SIGPIPE, SIG_DFL))",
    "writing to no descriptor": "import os\ntry:\n    os.write(9, b'x')\nexcept OSError as e:\n    print(e)",
    "sys.exit(0)": "import sys\nprint('a')\nsys.exit(0)",
    "sys.exit(3)": "import sys\nprint('a')\nsys.exit(3)",
    "sys.exit with words": "import sys\nprint('a')\nsys.exit('words')",
    "sys.exit in an exit handler's company": "import atexit, sys\natexit.register(print, 'b')\nprint('a')\nsys.exit()",
    "os._exit loses what is buffered": "import os\nprint('a')\nos._exit(0)",
    "os._exit keeps what left the buffer": "import os\nprint('a' * 5000)\nprint('b' * 5000)\nos._exit(5)",
    "raise SystemExit": "print('a')\nraise SystemExit",
    "quit()": "print('a')\nquit()",
    "no newline at the end": "print('a', end='')",
    "nothing at all": "",
    "a comment": "# nothing",
    "encoding line": "# -*- coding: utf-8 -*-\nprint('é')",
    "byte order mark": "\ufeffprint('é')",
    "carriage returns in the source": "x = '''a\r\nb'''\r\nprint(ascii(x))\r\n",
    "threads at the end": "import threading, time\n"
    "threading.Thread(target=lambda: (time.sleep(0.05), print('b'))).start()\nprint('a')",
    "recursion, 10,000 deep": "import sys\nsys.setrecursionlimit(20_000)\ndef f(n): return n and 1 + f(n - 1)\n"
    "print(f(10_000))",
    "recursion through sorted": (
        "import sys\nsys.setrecursionlimit(100_000)\ndef f(n): return n and 1 + sorted([n - 1], key=f)[0] * 0 + 1\n"
        "print(f(500))"
    ),
    "recursion in a large thread": (
        "import sys, threading\nsys.setrecursionlimit(10**9)\nthreading.stack_size(2**27)\n"
        "def f(n): return n and 1 + f(n - 1)\nt = threading.Thread(target=lambda: print(f(50_000)))\nt.start()\n"
        "t.join()"
    ),
    "too much recursion": "def f(n): return f(n + 1)\ntry:\n    f(0)\nexcept RecursionError as e:\n    print(e)",
    "stack of 16 MiB": "import resource\nresource.setrlimit(resource.RLIMIT_STACK, [2**24, resource.RLIM_INFINITY])\n"
    "print(resource.getrlimit(resource.RLIMIT_STACK))",
    "stack without a limit": "import resource, sys\nresource.setrlimit(resource.RLIMIT_STACK, (-1, -1))\n"
    "sys.setrecursionlimit(10**6)\ndef f(n): return n and 1 + f(n - 1)\nprint(f(30_000))",
    "hard limit of the stack": "import resource\nprint(resource.getrlimit(resource.RLIMIT_STACK)[1])",
    "prints 10,000 digits": "print(10**9_999)",
    "reads 10,000 digits": "print(int(input()) % 7, int(input()) % 7)",
    "formats 10,000 digits": "n = 10**9_999\nprint(f'{n}'[-3:], len(str(n)), '%d' % n == str(n), len(repr([n])))",
    "evaluates 10,000 digits": f"print(eval('{DIGITS}') % 7, {DIGITS} % 7)",
    "reads 10,000 digits as JSON": "import json\nprint(json.loads(input()) % 7)",
    "limit of digits": "import sys\nprint(sys.get_int_max_str_digits())\nsys.set_int_max_str_digits(0)\n"
    "print(10**5000)",
    "pickles its own class": "import pickle\nclass C: pass\nprint(type(pickle.loads(pickle.dumps(C()))) is C)",
    "order of sets": "print({'b', 'a', 'c'}, hash('a'))",
}  # fmt: skip
INPUTS = {
    "seekable input": "abc",
    "fast input by mode": "5\n",
    "reconfigure": "é\n",
    "carriage returns": "a\r\nb\r\nc\rd\r\n",
    "lines of the input": "a\r\nb\rc\n\nd",
    "bytes that are no UTF-8": "é",
    "open(0)": "é\r\n",
    "open(0, newline='')": "é\r\n",
    "os.read(0)": "abcdef\n",
    "os.fdopen": "abc",
    "stdin.buffer": "a\nbcd",
    "detached": "abc",
    "redirected": "8\n",
    "reads 10,000 digits": f"{DIGITS}\n{DIGITS}\n",
    "reads 10,000 digits as JSON": DIGITS,
}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with open_sandbox() as opened:
        yield opened


def real_output(program: str, stdin: str, folder: Path, *options: str) -> bytes:
    """What the interpreter prints that the sandbox uses, without one."""
    (folder / "program.py").write_bytes(program.encode())
    (folder / "input").write_bytes(stdin.encode())
    with (folder / "input").open("rb") as file:
        words = [str(interpreter()), *options, "program.py"]
        done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, stdin=file, capture_output=True, timeout=60)
    assert b"Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_sandbox_prints_what_python_prints(name: str, sandbox: Sandbox, tmp_path: Path) -> None:
    program, stdin = PROGRAMS[name], INPUTS.get(name, "")
    found = sandbox.run(Job(program, stdin=stdin), LIMITS)
    assert found.status is Status.OK, found.message
    # -S: without packages that happen to be installed beside this interpreter
    options = ["-S"] if name in IMPORTS else []
    assert found.output == real_output(program, stdin, tmp_path, *options)


def test_every_input_belongs_to_a_program() -> None:
    assert INPUTS.keys() <= PROGRAMS.keys()

"""Programs with the outcome that each of their tests must have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dschat.code_execution.long_integers import digits

Tests = dict[str, Any]

SUM: Tests = {"inputs": ["1 2\n", "3 4\n", "10 -4\n", "0 0\n"], "outputs": ["3\n", "7\n", "6\n", "0\n"]}
"""Print the sum of two integers."""
ADD: Tests = {"fn_name": "add", "inputs": [[1, 2], [3, 4], [10, -4], [0, 0]], "outputs": [3, 7, 6, 0]}
"""Return the sum of two integers."""
SORT: Tests = {"inputs": ["3\n3 1 2\n", "2\n5 5\n", "4\n9 8 1 2\n"], "outputs": ["1 2 3\n", "5 5\n", "1 2 8 9\n"]}
"""Print n numbers in order."""
COUNT: Tests = {"inputs": ["3\n", "1\n", "2\n"], "outputs": ["1\n2\n3\n", "1\n", "1\n2\n"]}
"""Print the integers from 1 to n, one on each line."""
MEAN: Tests = {"inputs": ["1 2\n", "1 3\n", "0 1\n"], "outputs": ["1.5\n", "2.0\n", "0.5\n"]}
"""Print the mean of two integers."""
PAIR: Tests = {"fn_name": "pair", "inputs": [[1], [2]], "outputs": [[1, 2], [2, 3]]}
"""Return n and n + 1."""
WRAPPED: Tests = {"fn_name": "add", "inputs": [[1, 2], [3, 4]], "outputs": [[3], [7]]}
"""The same as ADD, with each result in a list of its own, as in some published problems."""
FLAG: Tests = {"fn_name": "even", "inputs": [[2], [3]], "outputs": [True, False]}
"""Return whether n is even."""

LONG = 10**9_999 + 7
LONG_SUCCESSORS: Tests = {"inputs": [digits(LONG), digits(-LONG)], "outputs": [digits(LONG + 1), digits(1 - LONG)]}
"""Print the integer that follows one of 10,000 digits."""
LONG_RESULTS: Tests = {"fn_name": "after", "inputs": [[LONG], [-LONG]], "outputs": [LONG + 1, 1 - LONG]}
"""Return it."""

PASS, WRONG, ERROR, TIME = "pass", "wrong", "runtime_error", "time_limit"


@dataclass(frozen=True)
class Case:
    """One program."""

    name: str
    program: str
    tests: Tests
    outcomes: str | list[str]
    """Of each test; one word if all are alike."""
    score: float

    def expected(self) -> list[str]:
        if isinstance(self.outcomes, list):
            return self.outcomes
        return [self.outcomes] * len(self.tests["inputs"])


def honest(name: str, program: str, tests: Tests) -> Case:
    return Case(name, program, tests, PASS, 1.0)


HONEST = [
    honest("bare script", "a, b = map(int, input().split())\nprint(a + b)", SUM),
    honest("main function", "def main():\n    a, b = map(int, input().split())\n    print(a + b)\nmain()", SUM),
    honest(
        "main guard",
        "def main():\n    print(sum(map(int, input().split())))\nif __name__ == '__main__':\n    main()",
        SUM,
    ),
    honest("sys.stdin.read", "import sys\nprint(sum(map(int, sys.stdin.read().split())))", SUM),
    honest("sys.stdin.readline", "from sys import stdin\nprint(sum(map(int, stdin.readline().split())))", SUM),
    honest("lines of sys.stdin", "import sys\nfor line in sys.stdin:\n    print(sum(map(int, line.split())))", SUM),
    honest("sys.stdin.buffer", "import sys\nprint(sum(map(int, sys.stdin.buffer.read().split())))", SUM),
    honest("open(0)", "print(sum(map(int, open(0).read().split())))", SUM),
    honest("os.read", "import os\nprint(sum(map(int, os.read(0, 100).split())))", SUM),
    honest("input renamed", "import sys\ninput = sys.stdin.readline\nprint(sum(map(int, input().split())))", SUM),
    honest("sys.stdout.write", "import sys\nsys.stdout.write(str(sum(map(int, input().split()))))", SUM),
    honest("print to stdout", "import sys\nprint(sum(map(int, input().split())), file=sys.stdout, flush=True)", SUM),
    honest("no newline", "print(sum(map(int, input().split())), end='')", SUM),
    honest("white space around", "print('  ', sum(map(int, input().split())), '  \\n\\n')", SUM),
    honest("carriage return", "print(sum(map(int, input().split())), end='\\r\\n')", SUM),
    honest("noise on stderr", "import sys\nprint('debug', file=sys.stderr)\nprint(sum(map(int, input().split())))",
           SUM),
    honest("exit() at the end", "print(sum(map(int, input().split())))\nexit()", SUM),
    honest("sys.exit at the end", "import sys\nprint(sum(map(int, input().split())))\nsys.exit(0)", SUM),
    honest("raise SystemExit", "print(sum(map(int, input().split())))\nraise SystemExit", SUM),
    honest("reads to EOF", "total = 0\ntry:\n    while True:\n        total += sum(map(int, input().split()))\n"
           "except EOFError:\n    print(total)", SUM),
    honest("lambda", "solve = lambda: print(sum(map(int, input().split())))\nsolve()", SUM),
    honest("walrus", "print(sum(x := [int(w) for w in input().split()]))", SUM),
    honest("class", "class S:\n    def go(self):\n        return sum(map(int, input().split()))\nprint(S().go())", SUM),
    honest("imports in the middle", "a, b = input().split()\nimport operator\nprint(operator.add(int(a), int(b)))",
           SUM),
    honest("docstring and comments", '"""Adds."""\n# the sum\nprint(sum(map(int, input().split())))  # done', SUM),
    honest("globals", "a = 0\ndef f():\n    global a\n    a = sum(map(int, input().split()))\nf()\nprint(a)", SUM),
    honest("thread with a large stack",
           "import sys, threading\nsys.setrecursionlimit(10 ** 6)\nthreading.stack_size(2 ** 26)\n"
           "def down(n):\n    return n and down(n - 1)\ndef main():\n    down(20000)\n"
           "    print(sum(map(int, input().split())))\nt = threading.Thread(target=main)\nt.start()\nt.join()", SUM),
    honest("numpy", "import numpy as np\nprint(int(np.array(input().split(), dtype=int).sum()))", SUM),
    honest("decimal point for an integer", "print(float(sum(map(int, input().split()))))", SUM),
    honest("tabs", "if True:\n\ta, b = map(int, input().split())\n\tprint(a + b)", SUM),
    honest("semicolons", "a, b = input().split(); print(int(a) + int(b))", SUM),
    honest("unicode", "größe = sum(map(int, input().split()))\nprint(größe)", SUM),
    honest("names of the published preamble", "print(int(math.fsum(map(int, input().split()))))", SUM),
    honest("sorted", "n = int(input())\nprint(*sorted(map(int, input().split())))", SORT),
    honest("own sort", "n = int(input())\na = list(map(int, input().split()))\nfor i in range(n):\n"
           "    for j in range(n - 1):\n        if a[j] > a[j + 1]:\n            a[j], a[j + 1] = a[j + 1], a[j]\n"
           "print(*a)", SORT),
    honest("heap", "import heapq\ninput()\nh = [int(w) for w in input().split()]\nheapq.heapify(h)\n"
           "print(' '.join(str(heapq.heappop(h)) for _ in range(len(h))))", SORT),
    honest("counter", "from collections import Counter\ninput()\nc = Counter(map(int, input().split()))\n"
           "print(*[k for k in sorted(c) for _ in range(c[k])])", SORT),
    honest("line by line", "for i in range(int(input())):\n    print(i + 1)", COUNT),
    honest("joined lines", "print('\\n'.join(map(str, range(1, int(input()) + 1))))", COUNT),
    honest("blank lines between", "for i in range(int(input())):\n    print(i + 1)\n    print()", COUNT),
    honest("recursive", "def f(n):\n    if n:\n        f(n - 1)\n        print(n)\nf(int(input()))", COUNT),
    honest("generator", "def g(n):\n    yield from range(1, n + 1)\nprint(*g(int(input())), sep='\\n')", COUNT),
    honest("while loop", "n = int(input())\ni = 1\nwhile i <= n:\n    print(i)\n    i += 1", COUNT),
    honest("float", "a, b = map(int, input().split())\nprint((a + b) / 2)", MEAN),
    honest("formatted float", "a, b = map(int, input().split())\nprint(f'{(a + b) / 2:.10f}')", MEAN),
    honest("exponent", "a, b = map(int, input().split())\nprint(f'{(a + b) / 2:e}')", MEAN),
    honest("float with an error of 1e-9", "a, b = map(int, input().split())\nprint((a + b) / 2 * (1 + 1e-9))", MEAN),
    honest("fractions", "from fractions import Fraction\na, b = map(int, input().split())\n"
           "print(float(Fraction(a + b, 2)))", MEAN),
    honest("function", "def add(a, b):\n    return a + b", ADD),
    honest("function of any arguments", "def add(*numbers):\n    return sum(numbers)", ADD),
    honest("function from a lambda", "add = lambda a, b: a + b", ADD),
    honest("function from operator", "from operator import add", ADD),
    honest("method of Solution", "class Solution:\n    def add(self, a, b):\n        return a + b", ADD),
    honest("annotated method", "class Solution:\n    def add(self, a: int, b: int) -> int:\n        return a + b", ADD),
    honest("helper", "def helper(x):\n    return x\ndef add(a, b):\n    return helper(a) + helper(b)", ADD),
    honest("prints on the way", "print('hello')\ndef add(a, b):\n    print(a, b)\n    return a + b", ADD),
    honest("own main guard", "def add(a, b):\n    return a + b\nif __name__ == '__main__':\n    print(add(0))", ADD),
    honest("numpy scalar", "import numpy as np\ndef add(a, b):\n    return np.int64(a) + np.int64(b)", ADD),
    honest("decorated", "from functools import lru_cache\n@lru_cache(None)\ndef add(a, b):\n    return a + b", ADD),
    honest("closure", "def make():\n    def inner(a, b):\n        return a + b\n    return inner\nadd = make()", ADD),
    honest("memory of its own",
           "seen = []\ndef add(a, b):\n    seen.append(a)\n    assert len(seen) == 1\n    return a + b", ADD),
    honest("list", "def pair(n):\n    return [n, n + 1]", PAIR),
    honest("tuple for a list", "def pair(n):\n    return n, n + 1", PAIR),
    honest("numpy array for a list", "def pair(n):\n    return np.array([n, n + 1])", PAIR),
    honest("result that the data wraps", "def add(a, b):\n    return a + b", WRAPPED),
    honest("wrapped result", "def add(a, b):\n    return [a + b]", WRAPPED),
    honest("long number", "print(int(input()) + 1)", LONG_SUCCESSORS),
    honest("long result", "def after(n):\n    return n + 1", LONG_RESULTS),
    honest("mode of a stream", "import sys\nif sys.stdin.mode == 'r':\n    print(sum(map(int, input().split())))", SUM),
    honest("larger stack", "import resource\nresource.setrlimit(resource.RLIMIT_STACK, (2**27, -1))\n"
           "print(sum(map(int, input().split())))", SUM),
    honest("optional import", "try:\n    import sortedcontainers\nexcept ImportError:\n    sortedcontainers = None\n"
           "print(sum(map(int, input().split())))", SUM),
    honest("truth value", "def even(n):\n    return n % 2 == 0", FLAG),
]  # fmt: skip

BROKEN = [
    Case("off by one", "print(sum(map(int, input().split())) + 1)", SUM, WRONG, -0.3),
    Case("half right", "a, b = map(int, input().split())\nprint(a + abs(b))", SUM, [PASS, PASS, WRONG, PASS], 0.675),
    Case("constant", "print(7)", SUM, [WRONG, PASS, WRONG, WRONG], 0.025),
    Case("two numbers for one", "a, b = map(int, input().split())\nprint(a + b, a + b)", SUM, WRONG, -0.3),
    Case("word with the number", "print('Sum:', sum(map(int, input().split())))", SUM, WRONG, -0.3),
    Case("prints a function", "def f(): pass\nprint(f)", SUM, WRONG, -0.3),
    Case("says nothing", "a, b = map(int, input().split())", SUM, WRONG, -0.3),
    Case("sys.exit before the answer", "import sys\nsys.exit(0)\nprint(1)", SUM, WRONG, -0.3),
    Case("bare exit()", "exit()", SUM, WRONG, -0.3),
    Case("os._exit before the answer", "import os\nos._exit(0)", SUM, WRONG, -0.3),
    Case("invalid UTF-8", "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe')", SUM, WRONG, -0.3),
    Case("lone surrogate", "print('\\udce9')", SUM, WRONG, -0.3),
    Case("NUL", "print('\\0')", SUM, WRONG, -0.3),
    Case("padded with zeros", "print(f'{sum(map(int, input().split())):03d}')", SUM, WRONG, -0.3),
    Case("underscores", "print('0_' + str(sum(map(int, input().split()))))", SUM, WRONG, -0.3),
    Case("lines in reverse", "for i in range(int(input()), 0, -1):\n    print(i)", COUNT, [WRONG, PASS, WRONG], 2 / 15),
    Case("lines repeated", "for i in range(int(input())):\n    print(i + 1)\n    print(i + 1)", COUNT, WRONG, -0.3),
    Case("lines on one line", "print(*range(1, int(input()) + 1))", COUNT, [WRONG, PASS, WRONG], 2 / 15),
    Case("tokens in any order", "input()\nprint(*input().split())", SORT, [WRONG, PASS, WRONG], 2 / 15),
    Case("tokens each once", "input()\nprint(*sorted(set(map(int, input().split()))))", SORT, [PASS, WRONG, PASS],
         17 / 30),
    Case("float rounded too far", "print(1.4999)", MEAN, WRONG, -0.3),
    Case("NaN", "print('nan')", MEAN, WRONG, -0.3),
    Case("raises", "raise ValueError('no')", SUM, ERROR, -0.6),
    Case("raises in one test", "a, b = map(int, input().split())\nprint(a + b + 0 * (1 // b))", SUM,
         [PASS, PASS, PASS, ERROR], -0.6),
    Case("reads too much", "input()\nprint(input())", SUM, ERROR, -0.6),
    Case("endless recursion", "def f():\n    f()\nf()", SUM, ERROR, -0.6),
    Case("segmentation fault", "import ctypes\nctypes.string_at(0)", SUM, ERROR, -0.6),
    Case("os.abort", "import os\nos.abort()", SUM, ERROR, -0.6),
    Case("unknown module", "import torch", SUM, ERROR, -0.6),
    Case("creates a file", "import pathlib\npathlib.Path('/tmp/canary').write_text('x')", SUM, ERROR, -0.6),
    Case("allocates without end", "x = []\nwhile True:\n    x.append(bytearray(2 ** 28))", SUM, "memory_limit", -0.6),
    Case("prints without end", "while True:\n    print('x' * 1000)", SUM, "output_limit", -0.6),
    Case("one test loops", "a, b = map(int, input().split())\nwhile a == 3:\n    pass\nprint(a + b)", SUM,
         [PASS, TIME, PASS, PASS], -0.6),
    Case("three tests loop", "a, b = map(int, input().split())\nwhile a:\n    pass\nprint(a + b)", SUM,
         [TIME, TIME, TIME, PASS], -0.6),
    Case("swallows every exception", "a, b = map(int, input().split())\nwhile a == 3:\n    try:\n        while True:\n"
         "            pass\n    except BaseException:\n        pass\nprint(a + b)", SUM,
         [PASS, TIME, PASS, PASS], -0.6),
    Case("syntax error", "print(", SUM, "compile_error", -1.0),
    Case("Python 2", "print 3", SUM, "compile_error", -1.0),
    Case("bad indentation", "if True:\nprint(3)", SUM, "compile_error", -1.0),
    Case("Markdown left in", "```python\nprint(3)\n```", SUM, "compile_error", -1.0),
    Case("plain English", "The answer is three.", SUM, "compile_error", -1.0),
    Case("NUL in the source", "print(3)\0", SUM, "compile_error", -1.0),
    Case("nested too deeply to compile", "(" * 5000 + ")" * 5000, SUM, "compile_error", -1.0),
    Case("empty", "", SUM, "compile_error", -1.0),
    Case("blank", "\n  \n", ADD, "compile_error", -1.0),
    Case("other name", "def plus(a, b):\n    return a + b", ADD, "no_function", -1.0),
    Case("other method", "class Solution:\n    def plus(self, a, b):\n        return a + b", ADD, "no_function", -1.0),
    Case("function inside another", "def main():\n    def add(a, b):\n        return a + b", ADD, "no_function", -1.0),
    Case("wrong signature", "def add(a):\n    return a", ADD, ERROR, -0.6),
    Case("returns nothing", "def add(a, b):\n    print(a + b)", ADD, WRONG, -0.3),
    Case("returns text", "def add(a, b):\n    return str(a + b)", ADD, WRONG, -0.3),
    Case("returns a list of one", "def add(a, b):\n    return [a + b]", ADD, WRONG, -0.3),
    Case("returns a numpy array", "def add(a, b):\n    return np.array([a + b])", ADD, WRONG, -0.3),
    Case("returns NaN", "def add(a, b):\n    return float('nan')", ADD, WRONG, -0.3),
    Case("returns what equals everything",
         "class Equal:\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Equal()", ADD,
         ERROR, -0.6),
    Case("returns a number that equals everything",
         "class Equal(int):\n    def __eq__(self, other):\n        return True\ndef add(a, b):\n    return Equal(99)",
         ADD, WRONG, -0.3),
    Case("returns a set", "def pair(n):\n    return {n, n + 1}", PAIR, ERROR, -0.6),
    Case("returns a generator", "def pair(n):\n    yield n\n    yield n + 1", PAIR, ERROR, -0.6),
    Case("returns too little", "def pair(n):\n    return [n]", PAIR, WRONG, -0.3),
    Case("returns its first element", "def pair(n):\n    return n", PAIR, WRONG, -0.3),
    Case("returns a list that is too deep", "def pair(n):\n    x = []\n    for _ in range(5000):\n        x = [x]\n"
         "    return x", PAIR, ERROR, -0.6),
    Case("returns a list of itself", "def pair(n):\n    x = []\n    x.append(x)\n    return x", PAIR, ERROR, -0.6),
    Case("returns a number of many digits", "def pair(n):\n    return 10 ** 5000", PAIR, WRONG, -0.3),
    Case("long number off by one", "print(int(input()) + 1)", LONG_SUCCESSORS | {"inputs": LONG_SUCCESSORS["outputs"]},
         WRONG, -0.3),
    Case("long result off by one", "def after(n):\n    return n + 2", LONG_RESULTS, WRONG, -0.3),
    Case("long result rounded", "def after(n):\n    return float(10 ** 300)", LONG_RESULTS, WRONG, -0.3),
    Case("exits in the call", "import os\ndef add(a, b):\n    os._exit(0)", ADD, ERROR, -0.6),
    Case("sys.exit in the call", "import sys\ndef add(a, b):\n    sys.exit(0)", ADD, ERROR, -0.6),
    Case("1 for True", "def even(n):\n    return 1 - n % 2", FLAG, WRONG, -0.3),
    Case("walks the frames to the tests",
         "import sys\nframe = sys._getframe()\nwhile frame:\n    for name, value in list(frame.f_locals.items()):\n"
         "        if isinstance(value, dict) and 'outputs' in value:\n            print(value['outputs'][0])\n"
         "    frame = frame.f_back\n", SUM, WRONG, -0.3),
    Case("looks for the tests in memory",
         "import gc\nfor thing in gc.get_objects():\n    if isinstance(thing, dict) and 'outputs' in thing:\n"
         "        print(thing['outputs'][0])", SUM, WRONG, -0.3),
    Case("patches the judge", "from dschat.code_execution import comparison\n"
         "comparison.text_difference = lambda *_: None", SUM, WRONG, -0.3),
]  # fmt: skip

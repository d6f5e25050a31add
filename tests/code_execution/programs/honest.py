# %% bare_script
# stdin: 3\n1 2 3\n
# output: 6\n
n = int(input())
print(sum(map(int, input().split())))

# %% main_under_its_guard
# stdin: 4\n
# output: 16\n
def main():
    print(int(input()) ** 2)

if __name__ == "__main__":
    main()

# %% leaves_by_sys_exit
# output: done\n
import sys
def main():
    print("done")
    return 3
sys.exit(main())

# %% leaves_by_exit
# output: done\n
print("done")
exit()

# %% leaves_by_quit_in_a_function
# output: done\n
def f():
    print("done")
    quit()
f()
print("never")

# %% leaves_by_os_exit_after_flushing
# output: done\n
import os, sys
print("done")
sys.stdout.flush()
os._exit(0)

# %% reads_the_buffer
# stdin: 1 2\n3\n
# output: 6\n
import sys
print(sum(map(int, sys.stdin.buffer.read().split())))

# %% opens_descriptor_zero
# stdin: 1 2\n3\n
# output: [[1, 2], [3]]\n
print([list(map(int, line.split())) for line in open(0)])

# %% reads_by_size
# stdin: 1 2\n3\n
# output: 6\n
import os
print(sum(map(int, os.read(0, os.fstat(0).st_size).split())))

# %% reads_until_the_end
# stdin: 1\n2\n3
# output: 6\n
total = 0
try:
    while True:
        total += int(input())
except EOFError:
    print(total)

# %% iterates_over_standard_input
# stdin: a\r\nb\n
# output: a|b|
import sys
for line in sys.stdin:
    print(line.rstrip(), end="|")

# %% reads_and_seeks_back
# stdin: 12\n
# output: 12\n12\n
import sys
print(sys.stdin.read().strip())
sys.stdin.seek(0)
print(input())

# %% wraps_its_streams
# stdin: 5\n
# output: 5\n
import io, os, sys
class IOWrapper:
    def __init__(self, file):
        self.buffer = io.BytesIO()
        self.file = file
        self.write = lambda s: self.buffer.write(s.encode("ascii"))
        self.readline = lambda: file.readline()
    def flush(self):
        os.write(self.file.fileno(), self.buffer.getvalue())
        self.buffer.truncate(0)
        self.buffer.seek(0)
sys.stdin, sys.stdout = IOWrapper(sys.stdin), IOWrapper(sys.stdout)
print(int(sys.stdin.readline()))

# %% prints_at_exit
# output: 1\n2\n
import atexit
atexit.register(print, 2)
print(1)

# %% leaves_its_own_file_open
# output: unflushed
out = open(1, "w")
out.write("unflushed")

# %% prints_without_a_newline
# output: 1 2 3
print(1, 2, 3, end="")

# %% prints_to_standard_error_too
# output: ok\n
import sys
print("debug", file=sys.stderr)
print("ok")

# %% redirects_to_nothing
# output: ok\n
import contextlib, os
with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
    print("hidden")
print("ok")

# %% uses_names_of_the_preamble
# output: 4 2 [1, 2] 3.0 Counter({'a': 2}) 6\n
def f(x: List[int]) -> Optional[int]:
    return gcd(4, 8)
heap = [2, 1]
heappush(heap, 3)
print(f([]), bisect.bisect([1, 2], 2), sorted(heap)[:2], sqrt(9), Counter("aa"), reduce(lambda a, b: a + b, [1, 2, 3]))

# %% defines_names_of_the_preamble_itself
# output: 3 mine\n
def gcd(a, b):
    return "mine"
time = 3
print(time, gcd(1, 2))

# %% uses_numpy
# needs: numpy
# output: [3 7] 10\n
import numpy
a = np.arange(1, 5).reshape(2, 2)
print(a.sum(axis=1), numpy.sum(a))

# %% solves_with_numpy
# needs: numpy
# output: [2.0, 3.0] 0\n
import numpy as np
from numpy.fft import fft
print(np.linalg.solve([[3, 1], [1, 2]], [9, 8]).round(6).tolist(), int(abs(np.random.rand(3) - 0.5).max()))

# %% imports_much_of_the_library
# output: ok\n
import argparse, array, ast, asyncio, base64, bisect, calendar, cmath, collections.abc, concurrent.futures, contextlib
import copy, csv, dataclasses, datetime, decimal, difflib, enum, fractions, functools, gc, getpass, glob, hashlib, hmac
import html, inspect, io, itertools, json, locale, logging, math, multiprocessing, numbers, operator, os, pathlib, pickle
import platform, pprint, queue, random, re, secrets, select, shutil, signal, socket, statistics, string, struct, subprocess
import sys, tempfile, textwrap, threading, time, timeit, traceback, types, typing, unicodedata, unittest, urllib.parse
import uuid, warnings, weakref, xml.etree.ElementTree, zlib
hashlib.sha256(b"x").hexdigest(), uuid.uuid4(), secrets.token_hex(), datetime.datetime.now(), os.cpu_count()
decimal.Decimal(2).sqrt(), random.SystemRandom().random(), tempfile.gettempprefix(), platform.platform(), time.sleep(0.001)
print("ok")

# %% recurses_deeply
# output: 99999\n
import sys
sys.setrecursionlimit(10**6)
def depth(n):
    return n if n == 99999 else depth(n + 1)
print(depth(0))

# %% recurses_as_deep_as_the_default_allows
# output: 985\n
def depth(n):
    return n if n == 985 else depth(n + 1)
print(depth(0))

# %% recurses_deeply_with_a_cache
# output: 20000\n
# python: 3.11
import sys
from functools import lru_cache
sys.setrecursionlimit(10**6)
@lru_cache(maxsize=None)
def f(n):
    return 0 if n == 0 else 1 + f(n - 1)
print(f(20000))

# %% recurses_in_a_thread_with_a_large_stack
# output: 200000\n
import sys, threading
def main():
    def depth(n):
        return 0 if n == 0 else 1 + depth(n - 1)
    print(depth(200000))
sys.setrecursionlimit(10**6)
threading.stack_size(2**28)
thread = threading.Thread(target=main)
thread.start()
thread.join()

# %% starts_a_thread_and_ends
# output: from the thread\n
import threading, time
def main():
    time.sleep(0.05)
    print("from the thread")
threading.Thread(target=main).start()

# %% leaves_a_daemon_thread_behind
# output: ok\n
import threading
def loop():
    while True:
        pass
threading.Thread(target=loop, daemon=True).start()
print("ok")

# %% uses_a_pool_of_threads
# output: [0, 1, 4, 9]\n
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(8) as pool:
    print(list(pool.map(lambda x: x * x, range(4))))

# %% defines_data_classes
# output: Point(x=1, y=2) Color.RED Pair(a=1, b=2)\n
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple
import pickle
@dataclass(order=True)
class Point:
    x: int
    y: int = 2
class Color(Enum):
    RED = 1
class Pair(NamedTuple):
    a: int
    b: int = 2
print(pickle.loads(pickle.dumps(Point(1))), Color.RED, Pair(1))

# %% has_a_docstring_and_a_future_import
# output: ok\n
"""Solves it."""
from __future__ import annotations
x: undefined_type = "ok"
print(x)

# %% asks_for_its_file
# output: True\n
import os
print(bool(os.path.basename(__file__)) and __name__ == "__main__")

# %% prints_much
# output: 600000 characters
print("x" * 599999)

# %% reads_much
# stdin: 200000 numbers
# output: 200000\n
print(len(list(map(int, open(0).read().split()))))

# %% prints_every_kind_of_letter
# stdin: äé🙂\n
# output: äé🙂 3\n
s = input()
print(s, len(s))

# %% sorts_sets_the_same_way_every_time
# output: True\n
print(list({"b", "a", "c"}) == list({"b", "a", "c"}))

# %% measures_time
# output: True\n
import time, resource
start = time.perf_counter(), time.time(), time.process_time()
while time.process_time() - start[2] < 0.02:
    pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_utime >= 0 and time.perf_counter() > start[0])

# %% sets_limits_it_may_set
# output: ok\n
import resource, sys
soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
resource.setrlimit(resource.RLIMIT_STACK, (hard, hard))
print("ok")

# %% calls_a_function
# call: add [1, 2]
# output: 3
def add(a, b):
    return a + b

# %% calls_a_method_of_a_solution
# call: twoSum [[2, 7, 11], 9]
# output: [0, 1]
class Solution:
    def twoSum(self, nums: List[int], target: int) -> List[int]:
        seen = {}
        for i, x in enumerate(nums):
            if target - x in seen:
                return [seen[target - x], i]
            seen[x] = i

# %% calls_a_static_method
# call: f [2]
# output: 4
class Solution:
    @staticmethod
    def f(x):
        return x * x

# %% calls_a_function_beside_a_guard_that_must_not_run
# call: f [2]
# output: 4
def f(x):
    return x * 2
if __name__ == "__main__":
    print(f(int(input())))

# %% calls_a_function_that_prints
# call: f [2]
# output: 4
def f(x):
    print("thinking")
    return x * 2

# %% returns_tuples
# call: f []
# output: [1, [2, "a"], null, true]
def f():
    return 1, (2, "a"), None, True

# %% returns_numpy_numbers
# call: f []
# needs: numpy
# output: [3, 1.5, true, [[1, 2], [3, 4]]]
def f():
    return np.int64(3), np.float32(1.5), np.bool_(True), np.array([[1, 2], [3, 4]])

# %% returns_text
# call: f ["é\n"]
# output: "\u00e9\n!"
def f(s):
    return s + "!"

# %% returns_nan
# call: f []
# output: [NaN, Infinity]
def f():
    return [float("nan"), float("inf")]

# %% returns_a_mapping
# call: f [{"1": 2}]
# output: {"1": 3}
def f(d):
    return {int(key): value + 1 for key, value in d.items()}

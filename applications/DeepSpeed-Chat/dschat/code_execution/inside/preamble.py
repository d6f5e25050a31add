"""Names that programs find without importing them, as in the published harness of APPS."""

from __future__ import annotations

import contextlib
import importlib

_MODULES = "sys time itertools collections math fractions random heapq bisect functools re string operator".split()
_NAMES = {
    "itertools": "accumulate product permutations combinations",
    "collections": "Counter OrderedDict deque defaultdict ChainMap",
    "functools": "lru_cache cache reduce cmp_to_key",
    "math": "sqrt sin cos tan ceil fabs floor gcd exp log log2 inf",
    "heapq": "heappush heappop heapify heapreplace heappushpop merge nlargest nsmallest",
    "bisect": "bisect_left bisect_right insort",
    "typing": "Any Callable Dict Iterable List Optional Set Tuple Union",
}
_OFTEN_IMPORTED = "array cmath copy datetime decimal enum io json numbers queue statistics struct textwrap".split()


def load_preamble() -> dict[str, object]:
    """Import what programs often need, numpy included if it is there, and return the names they find ready."""
    names: dict[str, object] = {name: importlib.import_module(name) for name in _MODULES}
    for module, members in _NAMES.items():
        names |= {member: getattr(importlib.import_module(module), member) for member in members.split()}
    for name in _OFTEN_IMPORTED:
        importlib.import_module(name)
    with contextlib.suppress(ImportError):
        names["np"] = importlib.import_module("numpy")
    return names

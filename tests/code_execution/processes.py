"""Which processes there are."""

from __future__ import annotations

from pathlib import Path


def descendants(root: int) -> set[int]:
    """Process ids of everything below a process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    found: set[int] = set()
    frontier = {root}
    while frontier:
        frontier = {pid for pid, parent in parents.items() if parent in frontier} - found
        found |= frontier
    return found


def alive(pids: set[int]) -> set[int]:
    """Those that still exist, as zombies too."""
    return {pid for pid in pids if Path(f"/proc/{pid}").exists()}

"""The kernel's view of a process's changes to files."""

from __future__ import annotations

from pathlib import Path

import pytest

from soak.file_operations import can_watch
from soak.forks import Forks
from soak.runs import job


@pytest.mark.skipif(not can_watch(), reason="needs Linux 5.8 on x86-64 or 64-bit Arm")
def test_every_change_of_a_file_is_seen_whoever_makes_it(forks: Forks, paths: dict[str, str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = forks.run(job("sft", paths, out, "--max_steps 1"), operation=0, watched=out)
    assert ended.status == 0, ended.text
    changes = set(ended.changes)
    # written by Python, by C++ and by Rust
    assert "write .tmp-step_1/config.json" in changes
    assert any(change.split()[1] == "state/.tmp-step-1/model/mp_rank_00_model_states.pt" for change in changes)
    assert "write .tmp-step_1/tokenizer.json" in changes
    for change in ("fsync state/.tmp-step-1/shared.pt", "rename state/.tmp-step-1", "rename state/.tmp-latest"):
        assert change in changes

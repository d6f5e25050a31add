"""What the trials read off a run's folder; the trials themselves are in test_main.py."""

from __future__ import annotations

from pathlib import Path

from soak.trials import last_step, newest_state, numbered


def test_places_are_numbered_by_how_often_they_were_passed() -> None:
    assert numbered(["a", "b", "a"]) == [("a", 1), ("b", 1), ("a", 2)]


def test_the_last_step_is_that_of_the_last_whole_line(tmp_path: Path) -> None:
    assert last_step(tmp_path) == 0
    (tmp_path / "metrics.jsonl").write_text('{"step": 3}\n{"step": 4}\n{"step": 5')
    assert last_step(tmp_path) == 4


def test_half_written_states_do_not_count(tmp_path: Path) -> None:
    assert newest_state(tmp_path) == 0
    for name in ("step-2", "step-10", ".tmp-step-11"):
        (tmp_path / "state" / name).mkdir(parents=True)
    assert newest_state(tmp_path) == 10

"""One run over several lives: which steps are left, when it saves, how it is stopped."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dschat.config.runtime import SavingConfig
from dschat.errors import Stopped, TrainingFault, UserError
from dschat.runtime.resume import ResumePoint
from dschat.runtime.run import Continuation, ResumableRun


class Store:
    """Remembers which steps were saved."""

    def __init__(self, *, fails: bool = False) -> None:
        self.saved: list[int] = []
        self.fails = fails

    def save(self, state: Any, step: int, *, run_seconds: float) -> bool:
        """As `StateStore`."""
        self.saved.append(step)
        return not self.fails

    def last_good(self) -> str:
        """As `StateStore`."""
        return "there is no state"


def run_of(folder: Path, store: Store, *, done: int | None = None, **saving: Any) -> ResumableRun:
    manifest = SimpleNamespace(step=done, run_seconds=100.0)
    point = None if done is None else ResumePoint(folder, manifest)
    return ResumableRun(Continuation(folder, SavingConfig(**saving), store, point, torch.device("cpu")), object())


@pytest.mark.parametrize(
    ("done", "saving", "saved"),
    [(None, {"save_steps": 2}, [2, 4, 5]), (2, {"save_steps": 2}, [4, 5]), (None, {"save_steps": 0}, [5]),
     (None, {"save_only_model": True}, [])],
)  # fmt: skip
def test_steps_that_are_left_are_done_and_saved(
    done: int | None, saving: dict[str, Any], saved: list[int], tmp_path: Path
) -> None:
    store = Store()
    run = run_of(tmp_path, store, done=done, **saving)
    taken = []
    for step in run.steps(5):
        taken.append(step)
        run.step_done(step, last=step == 5)
    assert taken == list(range((done or 0) + 1, 6))
    assert store.saved == saved
    assert run.seconds >= (100.0 if done else 0.0)


def test_a_state_beyond_the_end_is_refused(tmp_path: Path) -> None:
    assert list(run_of(tmp_path, Store(), done=5).steps(5)) == []
    with pytest.raises(UserError, match="the state is of step 5, but this run has only 4 steps"):
        list(run_of(tmp_path, Store(), done=5).steps(4))


@pytest.mark.parametrize(("fails", "ending", "said"), [
    (False, Stopped, "after step 3; everything is saved, go on with"),
    (True, TrainingFault, "after step 3, and no state was saved; there is no state"),
])  # fmt: skip
def test_a_request_to_stop_saves_first(
    fails: bool, ending: type[Exception], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(fails=fails)
    run = run_of(tmp_path, store, save_steps=100)
    monkeypatch.setattr(run._stop, "agreed", lambda device: True)
    with pytest.raises(ending, match=said):
        run.step_done(3, last=False)
    assert store.saved == [3]
    run.step_done(4, last=True)  # the last step ends the run by itself

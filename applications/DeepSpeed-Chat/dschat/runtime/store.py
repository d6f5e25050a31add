"""The states of a run on disk: `<output>/state/step-<n>`, complete or not there, the newest ones kept."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dschat.config.runtime import OnFullDisk
from dschat.errors import TrainingFault
from dschat.runtime import files
from dschat.runtime.distributed import barrier, decided_by_main, is_main_process, world_size
from dschat.runtime.faults import fault_point
from dschat.runtime.manifest import DamagedState, Manifest, record_files
from dschat.runtime.state import TrainingState

logger = logging.getLogger(__name__)

STATES_FOLDER = "state"
POINTER = "latest"
SPARE_ROOM = 1.05
"""How much more than the last state must fit."""


@dataclass(frozen=True)
class StateStore:
    """The folder of a run's states. All ranks call every method together, unless it says otherwise."""

    folder: Path
    """`<output>/state`."""
    stage: str
    """sft, reward or ppo."""
    settings: Mapping[str, Any]
    """Decisive settings, for the manifests."""
    limit: int
    """How many states to keep; 0: all."""
    on_full_disk: OnFullDisk

    def save(self, state: TrainingState, step: int, *, run_seconds: float) -> bool:
        """Commit the state after `step` steps: everything of all ranks, or nothing.

        Written aside, forced to disk, manifest last, renamed; then the pointer moves and old states go.

        Returns:
            whether it was saved; False where the disk is full and the run goes on without.
        Raises:
            TrainingFault: it could not be written; the states before it are whole.
        """
        folder = self.folder / state_name(step)
        aside = files.aside(folder)
        if not decided_by_main(lambda: self._make_room(aside, step, state.estimated_bytes())):
            return False
        with files.explained(f"the state of step {step}", aside, advice=f"; {self.last_good()}"):
            state.save(aside)
            barrier()
            fault_point("state.record")
            records = record_files(aside)
            decided_by_main(lambda: _check_complete(aside, records, state))
            if is_main_process():
                fault_point("state.manifest")
                Manifest(self.stage, step, world_size(), self.settings, run_seconds, records).write(aside)
                files.sync_folder(aside)
                fault_point("state.commit")
                files.replace_folder(folder)
                fault_point("state.point")
                files.link(folder, self.folder / POINTER)
                files.sync_file(self.folder)
                fault_point("state.prune")
                self._prune(step)
        barrier()
        fault_point("state.done")
        return True

    def last_good(self) -> str:
        """A clause that says from where a run can go on; rank 0's view, without reading the files."""
        newest = next(iter(self.states()), None)
        return f"--resume auto goes on after step {newest[0]}" if newest else "no state was saved before it"

    def states(self) -> list[tuple[int, Path]]:
        """Step and folder of every state, the newest first, whether whole or not; rank 0 alone may call it too."""
        return list_states(self.folder)

    def _make_room(self, aside: Path, step: int, estimate: int) -> bool:
        with files.explained(f"the state of step {step}", aside, advice=f"; {self.last_good()}"):
            self.folder.mkdir(parents=True, exist_ok=True)
            files.remove(aside)
            aside.mkdir()
        needed = int((self._last_size() or estimate) * SPARE_ROOM)
        free = shutil.disk_usage(self.folder).free
        if free >= needed:
            return True
        files.remove(aside)
        shortage = (
            f"the state of step {step} needs about {needed / files.MIB:,.1f} MiB in {self.folder}, of which "
            f"{free / files.MIB:,.1f} MiB are free; delete files there or move --output_dir to a larger disk"
        )
        if self.on_full_disk == "stop":
            raise TrainingFault(f"{shortage} ({self.last_good()})")
        logger.warning("%s; training goes on without saving", shortage)
        return False

    def _last_size(self) -> int | None:
        """Bytes of the newest state that has a manifest, None if none has."""
        for _, folder in self.states():
            try:
                return Manifest.read(folder).size
            except DamagedState as fault:
                logger.debug("%s: %s", folder, fault)
        return None

    def _prune(self, step: int) -> None:
        # those of later steps are damaged, and will be replaced when their step is reached
        old = [folder for number, folder in self.states() if number <= step]
        for folder in old[self.limit :] if self.limit else []:
            files.prune_folder(folder)


def state_name(step: int) -> str:
    """Name of the state after `step` steps."""
    return f"step-{step}"


def list_states(folder: Path) -> list[tuple[int, Path]]:
    """Step and folder of every state in a folder of states, the newest first, whether whole or not."""
    found = [(int(path.name.removeprefix("step-")), path) for path in folder.glob("step-*") if _is_numbered(path)]
    return sorted(found, reverse=True)


def _is_numbered(path: Path) -> bool:
    return path.is_dir() and path.name.removeprefix("step-").isdigit()


def _check_complete(aside: Path, records: Mapping[str, Any], state: TrainingState) -> None:
    missing = [name for name in state.expected_files() if name not in records]
    if missing:
        raise TrainingFault(
            f"{', '.join(missing)} did not arrive in {aside}; --output_dir must lie on a file system that all nodes "
            "share"
        )

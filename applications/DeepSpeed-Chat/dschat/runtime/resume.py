"""From where a run goes on: the newest whole state, or the one that was named, of the same run."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dschat.config.decisive import differences
from dschat.errors import UserError
from dschat.runtime import files
from dschat.runtime.distributed import decided_by_main, world_size
from dschat.runtime.manifest import DamagedState, Manifest, installed_versions, verify
from dschat.runtime.store import STATES_FOLDER, list_states

logger = logging.getLogger(__name__)

AUTO, NEVER = "auto", "never"
ABANDONED = "abandoned-"


@dataclass(frozen=True)
class ResumePoint:
    """A whole state."""

    folder: Path
    manifest: Manifest


def find_state(output: Path, resume: str) -> ResumePoint | None:
    """The state that `--resume` asks for, None to start from the beginning; all ranks call it together.

    Args:
        output: the run's folder.
        resume: auto, never, or the folder of a state.
    Raises:
        UserError: the named state is not whole, or there are states and none is.
    """
    if resume == NEVER:
        return None
    if resume != AUTO:
        return _named_state(Path(resume).expanduser().absolute())
    candidates = decided_by_main(lambda: [folder for _, folder in list_states(output / STATES_FOLDER)])
    for folder in candidates:
        point = _whole_state(folder)
        if isinstance(point, ResumePoint):
            return point
        logger.warning("the state %s is not whole (%s); going back to the one before it", folder, point)
    if candidates:
        raise UserError(
            f"none of the {len(candidates)} states in {output / STATES_FOLDER} is whole; pass --overwrite_output_dir "
            "to start anew, or bring back a copy of one"
        )
    return None


def check_same_run(point: ResumePoint, *, stage: str, settings: Mapping[str, Any], override: bool) -> None:
    """Refuse a state of another step of the pipeline; of other settings or ranks too, unless that is wanted.

    Raises:
        UserError: lists what differs.
    """
    manifest = point.manifest
    if manifest.stage != stage:
        raise UserError(f"--resume: {point.folder} is a state of {manifest.stage}, this is {stage}; name another")
    ranks = ({"number of ranks": count} for count in (manifest.world_size, world_size()))
    different = [*differences(*ranks), *differences(manifest.settings, settings)]
    if different and not override:
        raise UserError(
            f"--resume: {point.folder} was saved with other settings ({'; '.join(different)}); use the same, or pass "
            "--resume_override to go on with these"
        )
    if different:
        logger.warning("going on with other settings than before: %s", "; ".join(different))
    versions = differences(manifest.versions, installed_versions())
    if versions:
        logger.warning("the state was saved with other versions: %s", "; ".join(versions))


def make_way(output: Path, point: ResumePoint | None) -> None:
    """Before training starts: leave no state of an earlier run, or of a future that is given up, to be taken for ours.

    States of later steps than the one that the run goes on from keep their content under another name; on a new start
    all states are deleted. For rank 0 alone.
    """
    states = output / STATES_FOLDER
    if point is None:
        if states.is_dir():
            files.prune_folder(states)
        return
    if point.folder.parent != states:
        return
    for step, folder in list_states(states):
        if step > point.manifest.step:
            name = f"{ABANDONED}{folder.name}"
            files.remove(states / name)
            folder.rename(states / name)
            logger.info("%s is not continued; it is now called %s", folder, name)


def _named_state(folder: Path) -> ResumePoint:
    folder = decided_by_main(folder.resolve)
    point = _whole_state(folder)
    if not isinstance(point, ResumePoint):
        raise UserError(f"--resume {folder} is no whole state ({point}); name another one, or pass --resume auto")
    return point


def _whole_state(folder: Path) -> ResumePoint | str:
    """The state, or what is wrong with it."""
    manifest = decided_by_main(lambda: _manifest_or_fault(folder))
    if isinstance(manifest, str):
        return manifest
    return verify(folder, manifest) or ResumePoint(folder, manifest)


def _manifest_or_fault(folder: Path) -> Manifest | str:
    try:
        return Manifest.read(folder)
    except DamagedState as fault:
        return str(fault)

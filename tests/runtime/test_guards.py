"""Faults of one rank that all ranks notice."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from dschat.errors import TrainingFault, UserError
from dschat.runtime.guards import check_finite, raise_together

CPU = torch.device("cpu")


def meet(rank: int, folder: str) -> None:
    """One of two ranks; the second one has made mistakes."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    raise_together(None, CPU)
    check_finite({"losses": torch.zeros(2)}, step=1)
    lines = []
    try:
        raise_together(UserError("seven scores for eight answers") if rank == 1 else None, CPU)
    except UserError as error:
        lines.append(str(error))
    for kinds in ((None, TrainingFault), (TrainingFault, UserError)):
        kind = kinds[rank]
        try:
            raise_together(kind and kind(f"met on rank {rank}"), CPU)
        except (TrainingFault, UserError) as error:
            lines.append(f"{type(error).__name__} {error}")
    try:
        check_finite({"losses": torch.tensor([1.0, torch.nan if rank == 1 else 0.0])}, step=3)
    except TrainingFault as error:
        lines.append(str(error))
    Path(folder, f"rank{rank}").write_text("\n".join(lines))
    dist.destroy_process_group()


def test_all_ranks_stop_with_the_sentence_of_the_one_that_failed(tmp_path: Path) -> None:
    mp.spawn(meet, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        mistake, *kinds, fault = (tmp_path / f"rank{rank}").read_text().splitlines()
        assert mistake == "seven scores for eight answers"
        assert kinds == ["TrainingFault met on rank 1", "UserError met on rank 1"]
        assert fault.startswith("the losses became NaN or infinite at step 3 on rank 1;")


def test_alone_the_mistake_is_raised_as_it_is() -> None:
    raise_together(None, CPU)
    with pytest.raises(UserError, match="one sentence"):
        raise_together(UserError("one sentence"), CPU)

"""Ranks: start-up, the only rank-0 logic, reductions, and whole weights under ZeRO-3."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from dschat.config.runtime import RuntimeConfig
from dschat.errors import RankFault, TrainingFault, UserError
from dschat.runtime.rendezvous import free_port, has_agent_store, take_seat
from dschat.runtime.training_engine import TrainingEngine

T = TypeVar("T")

TIMEOUT_SIGNS = ("Timed out waiting", "timed out", "Timeout")
LOST_SIGNS = ("Connection closed by peer", "Connection reset by peer", "Broken pipe")
ARRIVAL_SECONDS = 2.0
"""How far apart the ranks may give up waiting."""
ZERO_PARTITIONED = 3
"""The ZeRO stage at which a rank holds only a part of every weight."""


def prepare_environment(local_rank: int) -> None:
    """Make one process without a launcher a group of one, and let DeepSpeed find the compiler tools of this Python.

    Args:
        local_rank: what the launcher passed, or -1.
    """
    # DeepSpeed compiles its CPU communication with ninja, which pip puts beside the interpreter
    tools = str(Path(sys.executable).parent)
    if tools not in os.environ.get("PATH", "").split(os.pathsep):
        os.environ["PATH"] = tools + os.pathsep + os.environ.get("PATH", "")
    if "RANK" not in os.environ:
        os.environ.update(RANK="0", WORLD_SIZE="1")
    if os.environ.get("WORLD_SIZE") == "1" and not has_agent_store():
        # nobody has to find it: several runs of one process share a machine whatever port the launcher named
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port()))
    os.environ.setdefault("LOCAL_RANK", str(max(local_rank, 0)))


def initialize(local_rank: int, *, timeout_seconds: float = RuntimeConfig.dist_timeout) -> torch.device:
    """Join the process group (NCCL on GPUs, gloo on CPUs) and return this rank's device; may be called again.

    Args:
        local_rank: what the launcher passed, or -1.
        timeout_seconds: how long a rank waits for the others before it gives up.
    Raises:
        UserError: the port at which the ranks meet is another run's.
    """
    prepare_environment(local_rank)
    import deepspeed
    from deepspeed.accelerator import get_accelerator

    accelerator = get_accelerator()
    if accelerator.device_name() != "cpu":
        accelerator.set_device(int(os.environ["LOCAL_RANK"]))
    if not dist.is_initialized():
        store = take_seat(timeout_seconds=timeout_seconds)
        deepspeed.init_distributed(verbose=False, timeout=timedelta(seconds=timeout_seconds))
        del store
    return torch.device(accelerator.current_device_name())


def rank() -> int:
    """This process's number among all; 0 before `initialize` without a launcher."""
    return dist.get_rank() if dist.is_initialized() else int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if dist.is_initialized() else int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """Whether this process writes files and talks to the user."""
    return rank() == 0


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized():
        dist.barrier()


def is_about_lost_ranks(error: BaseException) -> bool:
    """Whether an error is a collective operation's, of which other ranks did not do their part."""
    return world_size() > 1 and any(sign in str(error) for sign in (*TIMEOUT_SIGNS, *LOST_SIGNS))


def explain_lost_ranks(error: RuntimeError, *, step: int) -> None:
    """Raise RankFault in place of an error by which a collective operation says that other ranks are gone.

    Ranks that waited in vain find each other in the rendezvous store; those that are not there did not arrive. On GPUs
    NCCL's own watchdog ends the processes and names the operation.
    """
    if not is_about_lost_ranks(error):
        return
    if any(sign in str(error) for sign in LOST_SIGNS):
        raise RankFault(f"contact with another rank was lost at step {step}; its own message says why") from error
    store = dist.distributed_c10d._get_default_store()
    store.set(f"dschat/waiting/{rank()}", "")
    time.sleep(ARRIVAL_SECONDS)
    absent = [number for number in range(world_size()) if not store.check([f"dschat/waiting/{number}"])]
    missing = ", ".join(map(str, absent)) or "none, all wait for one another"
    raise RankFault(
        f"waited in vain for the other ranks at step {step} (--dist_timeout); ranks that did not arrive: {missing}"
    ) from error


def gather(item: T) -> list[T]:
    """What every rank brought, in the order of ranks; all ranks call it together."""
    everybody: list[Any] = [item]
    if dist.is_initialized() and world_size() > 1:
        everybody = [None] * world_size()
        dist.all_gather_object(everybody, item)
    return everybody


def decided_by_main(decide: Callable[[], T]) -> T:
    """What `decide` returns on rank 0, on every rank; a UserError or TrainingFault of it is raised on every rank."""
    outcome: list[Any] = [None, None]
    if is_main_process():
        try:
            outcome[0] = decide()
        except (UserError, TrainingFault) as error:
            outcome[1] = error
    if dist.is_initialized() and world_size() > 1:
        dist.broadcast_object_list(outcome, src=0)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the body on rank 0, then on the others, which then find its files in place."""
    if not is_main_process():
        barrier()
    yield
    if is_main_process():
        barrier()


def reduce_sum(values: Tensor) -> Tensor:
    """Sum of a tensor over all ranks; the shape, such as [N], stays."""
    if dist.is_initialized() and world_size() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def reduce_max(values: Tensor) -> Tensor:
    """Largest of a tensor over all ranks, entry by entry; the shape, such as [N], stays."""
    if dist.is_initialized() and world_size() > 1:
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


def union(names: Sequence[str]) -> list[str]:
    """All names that any rank has, sorted; all ranks call it together."""
    return sorted({name for one in gather(list(names)) for name in one})


def is_partitioned(model: nn.Module) -> bool:
    """Whether the weights are spread over the ranks by ZeRO-3."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


@contextmanager
def gathered(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Within the body every rank holds these weights whole; all ranks must enter together."""
    partitioned = [p for p in parameters if hasattr(p, "ds_id")]
    if not partitioned:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(partitioned):
        yield


@contextmanager
def whole_weights(engine: TrainingEngine, *, gather: bool) -> Iterator[nn.Module]:
    """The engine's module, ready for `generate`.

    Under ZeRO-3 with `gather` the weights are gathered once for the whole body and DeepSpeed's fetching hooks are
    taken off meanwhile: about four times as fast as gathering for each token, but each rank needs room for all weights.

    Args:
        engine: a DeepSpeed engine of any stage.
        gather: whether to do so at stage 3; without it every rank must generate equally many tokens.
    """
    if engine.zero_optimization_stage() < ZERO_PARTITIONED or not gather:
        yield engine.module
        return
    # Private in DeepSpeed; the dependency is pinned to the release that this was tested on.
    offload = engine.optimizer.parameter_offload
    offload._remove_module_hooks()
    try:
        with gathered(list(engine.module.parameters())):
            yield engine.module
    finally:
        offload.setup_zero_stage3_hooks()


def whole_state_dict(model: nn.Module) -> dict[str, Tensor] | None:
    """Every weight, whole, such as [V, D], on the CPU under its name, tied ones once, on rank 0; None elsewhere.

    All ranks call it together.
    """
    weights: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        with gathered([parameter]):
            if is_main_process():
                weights[name] = parameter.detach().to("cpu", copy=True)
    if not is_main_process():
        return None
    persistent = set(model.state_dict().keys())
    for name, buffer in model.named_buffers():
        if name in persistent:
            weights[name] = buffer.detach().to("cpu", copy=True)
    return weights


def gather_shares(share: Tensor, total: int) -> Tensor:
    """The parts [N] of all ranks in order as one tensor [T] on every rank; all ranks must call it together.

    T is `total`, N = ceil(T / world size); parts of the last ranks may be shorter, or longer by padding.
    """
    size = -(-total // world_size())
    if not dist.is_initialized() or world_size() == 1:
        return share[:total]
    padded = share.new_zeros(size)
    padded[: share.numel()] = share
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat(parts)[:total]


def whole_copy(parameter: nn.Parameter) -> Tensor:
    """A copy of one weight, whole on every rank, of its full shape such as [V, D]; all ranks must call it together."""
    with gathered([parameter]):
        return parameter.detach().clone()

"""The port at which the ranks of a run find each other, and a check that it is not another run's.

The launcher names one port for all (`--master_port`, 29500 unless told otherwise). Where two runs share a machine,
rank 0 of the second cannot listen there, and its other ranks would join the first run and may bring it down.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import threading
import time
import uuid
from contextlib import suppress
from datetime import timedelta

import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]  # exported, but not by name

from dschat.errors import RankFault, RankMistake, UserError

RUN_KEY, SEAT_KEY = "dschat/run", "dschat/seat"
OWNER_SECONDS = 3.0
"""How long to ask who holds a port."""
SILENT_SECONDS = 5.0
"""How long a rank that found another run leaves it to rank 0 to say so; the launcher then ends it."""


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def has_agent_store() -> bool:
    """Whether torchrun holds the port, and tells runs apart itself."""
    return os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"


def take_seat(*, timeout_seconds: float) -> TCPStore | None:
    """Take this rank's place at MASTER_ADDR:MASTER_PORT before anything else is said there.

    Args:
        timeout_seconds: how long to wait for rank 0.
    Returns:
        what rank 0 listens with, to be kept until the process group is made, which then uses the same port; None where
        somebody else arranges the meeting.
    Raises:
        UserError: the port is taken, or another run's.
        RankFault: there is no rank 0.
    """
    if has_agent_store() or not {"MASTER_ADDR", "MASTER_PORT", "RANK"} <= os.environ.keys():
        return None
    address, port, rank = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), int(os.environ["RANK"])
    try:
        store = _store(address, port, timeout_seconds, listen=rank == 0)
        if rank == 0:
            store.set(RUN_KEY, json.dumps(_this_run()))
        run = json.loads(store.get(RUN_KEY))
        me = uuid.uuid4().hex
        ours = run["command"] == _this_run()["command"]
        # a second start of the same command finds its seat taken
        ours = ours and store.compare_set(f"{SEAT_KEY}/{rank}", "", me).decode() == me
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        if rank == 0:
            raise UserError(_taken(address, port, _owner(address, port), str(error))) from error
        raise RankFault(
            f"waited {timeout_seconds:g} s (--dist_timeout) in vain for rank 0 at {address}:{port}; its own message "
            "says why it is not there"
        ) from error
    if not ours:
        time.sleep(SILENT_SECONDS)
        raise RankMistake(_taken(address, port, run["owner"], ""))
    return store


def _store(address: str, port: int, timeout_seconds: float, *, listen: bool) -> TCPStore:
    return TCPStore(
        address, port, is_master=listen, timeout=timedelta(seconds=timeout_seconds), wait_for_workers=False,
        multi_tenant=True,
    )  # fmt: skip


def _this_run() -> dict[str, str]:
    """What all ranks of a run have in common, and who rank 0 is."""
    words = [word for word in sys.argv[1:] if not word.startswith(("--local_rank", "--local-rank"))]
    command = hashlib.sha256(json.dumps(words).encode()).hexdigest()
    return {"command": command, "owner": f"the run of process {os.getpid()} on {socket.gethostname()}"}


def _owner(address: str, port: int) -> str:
    """Who listens at a port."""
    found: list[str] = []

    def ask() -> None:
        with suppress(dist.DistNetworkError, dist.DistStoreError, ValueError):
            found.append(json.loads(_store(address, port, OWNER_SECONDS, listen=False).get(RUN_KEY))["owner"])

    # aside, because a client that meets a server of another kind may wait for it without end
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(OWNER_SECONDS)
    return found[0] if found else "another program"


def _taken(address: str, port: int, owner: str, reason: str) -> str:
    advice = f"give this run a port of its own: deepspeed --master_port {free_port()} ..."
    if reason and "EADDRINUSE" not in reason:
        return f"rank 0 cannot listen at {address}:{port} ({reason.splitlines()[0]}); {advice}"
    return f"port {port} of {address} is in use by {owner}; {advice}"

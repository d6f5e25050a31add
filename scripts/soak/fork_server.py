"""Runs training jobs, each in a fork of this process, which has imported everything.

It reads one JSON object a line and writes one a line. A kill then costs a fork, not ten seconds of imports.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import torch

from dschat.runtime import faults
from dschat.runtime.rendezvous import free_port
from soak.file_operations import submit, watch


def warm_up() -> None:
    """Import and load what a run loads late, which takes longer than the runs themselves.

    No process group and no threads, which would not survive a fork; that of jemalloc, which pyarrow brings, does.
    """
    import deepspeed
    import deepspeed.runtime.zero.muon.muon_optimizer  # what ZeRO asks for: it loads torch's compiler
    import peft  # noqa: F401
    import transformers.generation.utils
    import transformers.optimization  # noqa: F401
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping
    from transformers.models.llama import modeling_llama  # noqa: F401

    from dschat.offline import reward, sft  # noqa: F401
    from dschat.rlhf import run_ppo  # noqa: F401
    from dschat.runtime.distributed import prepare_environment

    torch.set_num_threads(1)
    prepare_environment(-1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    ShareMemCommBuilder().load(verbose=False)
    _ = deepspeed.ops.__compatible_ops__
    get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns and keeps them


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not speak to the client
    warm_up()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        answers.write(json.dumps(serve(json.loads(line))) + "\n")
        answers.flush()


def serve(request: dict[str, Any]) -> dict[str, Any]:
    """Run one job on all of its ranks, and kill one of them if that is asked for."""
    ours, theirs = socket.socketpair()
    children = start_ranks(request, theirs)
    theirs.close()
    running = dict(enumerate(children))
    victim = request["victim"]

    def kill(*_: Any) -> None:
        if victim in running:
            os.kill(running[victim], signal.SIGKILL)

    if request["seconds"] is not None:
        signal.signal(signal.SIGALRM, kill)
        signal.setitimer(signal.ITIMER_REAL, request["seconds"])
    changes = []
    if request["operation"] is not None:
        changes = watch(ours, children[victim], Path(request["watched"]), kill_before=request["operation"])
    ours.close()
    statuses = [0] * len(children)
    while running:
        # not reaped before the kill is off: the number may then be another process's
        child = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT).si_pid
        number = children.index(child)
        del running[number]
        statuses[number] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    signal.setitimer(signal.ITIMER_REAL, 0)
    return {"statuses": statuses, "changes": changes}


def start_ranks(request: dict[str, Any], to_watcher: socket.socket) -> list[int]:
    """Fork as many children as the job has ranks; their process ids."""
    port = str(free_port())
    children = []
    for number in range(request["ranks"]):
        child = os.fork()
        if child == 0:
            if request["ranks"] > 1:
                place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": request["ranks"], "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
            watched = request["operation"] is not None and number == request["victim"]
            run_child(request, number, to_watcher if watched else None)
        children.append(child)
    return children


def run_child(request: dict[str, Any], number: int, to_watcher: socket.socket | None) -> None:
    """Run one job as an entry point does, and leave without the server's clean-up."""
    log = os.open(f"{request['log']}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    os.environ.update(request["environment"])
    os.environ[faults.TRACE] = f"{request['trace']}-{number}"
    status = 1
    try:
        if to_watcher is not None:
            submit(to_watcher)
        status = run(request)
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        os._exit(status)


def run(request: dict[str, Any]) -> int:
    """The job, under the changes that its set-up function makes."""
    from dschat.errors import run_guarded
    from toys.jobs import Job, run_job

    if request["setup"]:
        module, _, name = request["setup"].partition(":")
        getattr(importlib.import_module(module), name)()
    run_guarded(lambda: run_job(Job(**request["job"])) and None)
    return 0


if __name__ == "__main__":
    main()

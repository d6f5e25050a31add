"""Runs training jobs, each in a fork of this process, which has imported everything.

It reads one JSON object a line and writes one a line. A kill then costs a fork, not ten seconds of imports.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from tests.launch import free_port


def warm_up() -> None:
    """Import and load what a run loads late. No process group and no threads: they would not survive a fork."""
    import deepspeed
    import peft  # noqa: F401
    import transformers.generation.utils
    import transformers.optimization  # noqa: F401
    from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder

    import dschat.rlhf.training_loop
    import dschat.supervised.reward
    import dschat.supervised.sft  # noqa: F401
    from dschat.runtime.distributed import prepare_environment

    torch.set_num_threads(1)
    prepare_environment(-1)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    ShareMemCommBuilder().load(verbose=False)
    _ = deepspeed.ops.__compatible_ops__


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries that print must not speak to the client
    warm_up()
    answers.write("ready\n")
    answers.flush()
    for line in sys.stdin:
        request = json.loads(line)
        statuses = dict(enumerate(start_ranks(request)))
        children = {child: number for number, child in statuses.items()}
        while children:
            child, status = os.waitpid(-1, 0)
            statuses[children.pop(child)] = os.waitstatus_to_exitcode(status)
        answers.write(json.dumps({"statuses": list(statuses.values())}) + "\n")
        answers.flush()


def start_ranks(request: dict[str, Any]) -> list[int]:
    """Fork as many children as the job has ranks; their process ids."""
    port = str(free_port())
    children = []
    for number in range(request["ranks"]):
        child = os.fork()
        if child == 0:
            if request["ranks"] > 1:
                place = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": request["ranks"], "MASTER_PORT": port}
                os.environ.update({name: str(value) for name, value in place.items()}, MASTER_ADDR="127.0.0.1")
            run_child(request, number)
        children.append(child)
    return children


def run_child(request: dict[str, Any], number: int) -> None:
    """Run one job as an entry point does, and leave without the server's clean-up."""
    log = os.open(f"{request['log']}-{number}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.stdout = sys.stderr = os.fdopen(1, "w", buffering=1)
    os.environ.update(request["environment"])
    status = 1
    try:
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
    from tests.jobs import Job, run_job

    if request["setup"]:
        module, _, name = request["setup"].partition(":")
        getattr(importlib.import_module(module), name)()
    run_guarded(lambda: run_job(Job(**request["job"])) and None)
    return 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main()

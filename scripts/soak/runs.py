"""The command lines that the tests of resuming run."""

from __future__ import annotations

from pathlib import Path

from toys.jobs import Job, ppo_arguments, supervised_arguments

STEPS = ("sft", "reward", "ppo")


def job(step: str, paths: dict[str, str], output: Path, extra: str = "") -> Job:
    """A run that does and saves everything in every step; `extra` is appended and so wins."""
    shared = f"--data_output_path {paths['cache']} --save_steps 1 --num_train_epochs 9 "
    if step == "ppo":
        return Job("ppo", ppo_arguments(paths, output, f"{shared} --actor_dropout 0.1 {extra}"))
    return Job(step, supervised_arguments(paths, "sft", output, f"{shared} --eval_interval 1 --dropout 0.1 {extra}"))

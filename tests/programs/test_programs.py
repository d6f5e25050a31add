"""Published files are thin mains of `dschat.programs`, and every program has one."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

from dschat import programs
from tests.launch import REPOSITORY

TRAINING = "applications/DeepSpeed-Chat/training"
PUBLISHED = {
    "dschat.programs.sft": f"{TRAINING}/step1_supervised_finetuning/main.py",
    "dschat.programs.prompt_eval": f"{TRAINING}/step1_supervised_finetuning/prompt_eval.py",
    "dschat.programs.reward": f"{TRAINING}/step2_reward_model_finetuning/main.py",
    "dschat.programs.rw_eval": f"{TRAINING}/step2_reward_model_finetuning/rw_eval.py",
    "dschat.programs.ppo": f"{TRAINING}/step3_rlhf_finetuning/main.py",
    "dschat.programs.ppo_apps": f"{TRAINING}/step3_rlhf_finetuning/main_apps.py",
    "dschat.programs.ppo_wpr": f"{TRAINING}/step3_rlhf_finetuning/main_wpr.py",
    "dschat.programs.ppo_wpr_apps": f"{TRAINING}/step3_rlhf_finetuning/main_wpr_apps.py",
    "dschat.programs.chat": "applications/DeepSpeed-Chat/chat.py",
    "dschat.programs.generate": "inference/inference_with_rewards.py",
    "dschat.programs.generate_apps": "inference/inference_apps.py",
    "dschat.programs.judge": "evaluation/gpt4-eval.py",
    "dschat.programs.human_eval": "evaluation/human-eval.py",
    "dschat.programs.metrics": "evaluation/metrics.py",
    "dschat.programs.report": "evaluation/report.py",
    "dschat.programs.sample": "evaluation/tools/sample_from_dataset.py",
    "dschat.programs.import_gguf": "scripts/import_gguf.py",
    "dschat.programs.inspect_geometry": "scripts/inspect_geometry.py",
    "dschat.programs.make_tiny_model": "scripts/make_tiny_model.py",
    "dschat.programs.merge_lora": "scripts/merge_lora.py",
}
OF_THE_REPOSITORY = {
    "compare_regularizers.main": "scripts/compare_regularizers.py",
    "soak.main": "scripts/soak.py",
}
LONGEST = 12
"""Lines of a thin main."""


def test_every_program_is_published() -> None:
    names = {path.stem for path in Path(programs.__path__[0]).glob("*.py")} - {"__init__"}
    assert {name.rpartition(".")[2] for name in PUBLISHED} == names


@pytest.mark.parametrize(("module", "file"), (PUBLISHED | OF_THE_REPOSITORY).items())
def test_a_published_file_only_starts_its_program(module: str, file: str) -> None:
    text = (REPOSITORY / file).read_text()
    assert len(text.splitlines()) <= LONGEST
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    assert {node.module for node in imports} == {"dschat.errors", module}
    assert text.endswith('if __name__ == "__main__":\n    run_guarded(main)\n')


@pytest.mark.parametrize("module", PUBLISHED)
def test_a_program_starts_nothing_when_it_is_imported(module: str) -> None:
    assert callable(importlib.import_module(module).main)

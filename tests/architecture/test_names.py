"""Tests are found by name: those of `dschat/a/b.py` in `tests/a/test_b.py`, of `scripts/a/b.py` in
`tests/scripts/a/test_b.py`.

A module whose tests live elsewhere is in the table below.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.architecture.test_imports import PACKAGE, REPOSITORY
from tests.programs.test_programs import PUBLISHED

TESTS = REPOSITORY / "tests"
SCRIPTS = REPOSITORY / "scripts"

ELSEWHERE: dict[str, tuple[str, ...]] = {
    # programs and published files start what is tested elsewhere
    **dict.fromkeys(PUBLISHED, ("programs/test_programs.py",)),
    **dict.fromkeys(("compare_regularizers", "soak"), ("programs/test_programs.py",)),
    "inspect_geometry": ("tools/test_inspect_geometry.py",),
    "make_tiny_model": ("programs/test_programs.py",),
    "merge_lora": ("programs/test_programs.py",),
    # parts of a program that mean something together only
    "dschat.answering.answering": ("answering/test_with_unit_tests.py",),
    "dschat.answering.apps_options": ("answering/test_with_unit_tests.py",),
    "dschat.answering.journal": ("answering/test_with_unit_tests.py",),
    "dschat.answering.options": ("answering/test_with_rewards.py",),
    "dschat.data.batches": ("data/test_collate.py",),
    "import_gguf": ("programs/test_programs.py",),
    "toys.templates": ("models/test_chat_template.py",),
    "dschat.judging.report_data": ("judging/test_report.py",),
    "soak.fork_server": ("scripts/soak/test_forks.py",),
    "soak.runs": ("resume/test_kill_points.py", "resume/test_stopping.py"),
    # the sandbox as a whole
    "dschat.code_execution": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.execute": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.inside.lockdown": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.inside.switch_user": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.inside.zygote": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.records": ("code_execution/test_apps_tests.py",),
    "dschat.code_execution.rungs": ("code_execution/test_sandbox.py",),
    "dschat.code_execution.worker": ("code_execution/test_pool.py",),
    # settings, as they are composed and read
    "dschat.config.retired": ("config/test_published_flags.py",),
    "dschat.data.sources": ("data/test_find_raw_dataset.py",),
    "dschat.data.tiny_apps_algorithms": ("data/test_tiny_apps.py",),
    "dschat.data.tiny_apps_chains": ("data/test_tiny_apps.py",),
    "dschat.data.tiny_apps_problems": ("data/test_tiny_apps.py",),
    # numbers, against oracles of a whole computation
    "dschat.published": ("config/test_shared_values.py",),
    "dschat.optimal_transport.potentials": ("optimal_transport/test_truncated.py", "optimal_transport/test_capped.py"),
    "dschat.optimal_transport.sinkhorn": ("optimal_transport/test_newton.py",),
    "dschat.optimal_transport.transport": ("optimal_transport/test_truncated.py", "optimal_transport/test_capped.py"),
    "dschat.rlhf.regularizers.base": ("rlhf/regularizers/test_kl.py",),
    "dschat.rlhf.regularizers.none": ("rlhf/regularizers/test_kl.py",),
    "dschat.rlhf.reward_sources": ("rlhf/reward_sources/test_unit_tests.py",),
    "dschat.rlhf.reward_sources.base": ("rlhf/test_rollout_metrics.py",),
    "dschat.rlhf.reward_sources.learned_model": ("rlhf/test_row_groups.py",),
    "dschat.rlhf.reward_sources.weighted_sum": ("rlhf/reward_sources/test_python_function.py",),
    "dschat.rlhf.scoring": ("rlhf/test_row_groups.py",),
    # whole runs
    "dschat.offline.reward": ("end_to_end/test_dry_run.py",),
    "dschat.offline.setup": ("end_to_end/test_lora.py",),
    "dschat.offline.sft": ("end_to_end/test_dry_run.py",),
    "dschat.generation": ("generation/test_base.py", "generation/test_hugging_face.py"),
    "dschat.preparation": ("end_to_end/test_flags_act.py",),
    "dschat.rlhf.ppo_updates": ("runtime/test_fp16_overflow.py",),
    "dschat.rlhf.ppo_loop": ("end_to_end/test_flags_act.py",),
    "dschat.runtime.deepspeed_entries": ("runtime/test_deepspeed_overrides.py",),
    "dschat.runtime.distributed": ("runtime/test_stepping.py",),
    "dschat.runtime.logging": ("test_errors.py",),
    "dschat.runtime.resume": ("resume/test_damage.py",),
    "dschat.runtime.stopping": ("resume/test_stopping.py",),
    "dschat.runtime.store": ("resume/test_kill_points.py", "resume/test_stopping.py"),
}
"""Test files by module."""


def modules() -> list[tuple[str, Path, Path]]:
    """Every module with code: its name, its file, and the test file that its name leads to."""
    found = []
    for root, prefix, tests in ((PACKAGE, "dschat", TESTS), (SCRIPTS, "", TESTS / "scripts")):
        for path in sorted(root.rglob("*.py")):
            relative = path.relative_to(root)
            if relative.name == "__init__.py":
                if not defines(path):
                    continue
                relative = relative.parent  # a package is tested beside its folder
            name = ".".join(filter(None, (prefix, *relative.with_suffix("").parts)))
            found.append((name, path, tests / relative.parent / f"test_{relative.stem}.py"))
    return found


def defines(path: Path) -> bool:
    """Whether a file has a function or a class of its own."""
    return any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in ast.parse(path.read_text()).body)


@cache
def looked_at(test: Path) -> tuple[set[str], str]:
    """What a test file imports, and its text."""
    text, names = test.read_text(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names, text


def concerns(test: Path, module: str, path: Path) -> bool:
    """Whether a test file imports a module, or names it or its file.

    What a package exports counts as of its modules; programs in scripts/bench find each other without the folder.
    """
    names, text = looked_at(test)
    file = str(path.relative_to(path.parents[1]))
    said = (module, file, f'"{path.parent.name}" / "{path.name}"')
    exported = module.rpartition(".")[0] if path.parent.name == "optimal_transport" else module
    return bool({module, module.removeprefix("bench."), exported} & names) or any(word in text for word in said)


@pytest.mark.parametrize(
    ("module", "path", "test"), modules(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_module_has_tests_that_its_name_leads_to(module: str, path: Path, test: Path) -> None:
    if module not in ELSEWHERE:
        assert test.is_file(), f"{module} has no test: write {test}, or name its tests in the table"
        return
    assert not test.exists(), f"{test} is there: take {module} out of the table"
    for file in (TESTS / name for name in ELSEWHERE[module]):
        assert file.is_file(), f"{file}, which the table names for {module}, does not exist"
        assert concerns(file, module, path), f"{file} neither imports nor names {module}"


def test_the_table_holds_no_module_that_is_gone() -> None:
    assert sorted(ELSEWHERE.keys() - {module for module, _, _ in modules()}) == []

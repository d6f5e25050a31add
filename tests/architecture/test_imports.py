"""Who may import whom."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import dschat

PACKAGE = Path(dschat.__file__).parent
REPOSITORY = Path(__file__).parents[2]

# What a part of the package may import of the package itself, besides itself and the LEAVES.
ALLOWED = {
    "code_execution": set(),
    "config": {"code_execution"},
    "optimal_transport": set(),
    "data": {"config", "code_execution"},
    "models": {"config"},
    "runtime": {"config", "models.lora"},
    "engines": {"config", "models", "runtime"},
    "loop": {"config", "runtime"},
    "generation": {"data", "models", "runtime"},
    "offline": {"config", "data", "engines", "loop", "models", "runtime", "preparation"},
    "answering": {"code_execution", "config", "data", "generation", "models", "rlhf.reward_sources"},
    "judging": {"answering", "data"},
    "tools": {"data", "models", "optimal_transport", "runtime"},
    "programs": {"answering", "config", "judging", "offline", "rlhf.run_ppo", "tools"},
    "preparation": {"config", "data", "models", "runtime"},
    "rlhf.ppo_math": set(),
    "rlhf.experience": set(),
    "rlhf.macro_actions": {"rlhf.ppo_math"},
    "rlhf.constituency": set(),
    "rlhf.shaping": {"config", "runtime", "rlhf.experience", "rlhf.ppo_math"},
    "rlhf.rollout_metrics": {"runtime", "rlhf.experience", "rlhf.reward_sources", "rlhf.scoring", "rlhf.segmenter"},
    "rlhf.segmenter": {"config", "rlhf.constituency", "rlhf.experience", "rlhf.macro_actions"},
    "rlhf.regularizers": {"config", "optimal_transport"},
    "rlhf.rollout": {"data", "generation", "rlhf.experience", "models"},
    "rlhf.row_groups": {"runtime", "rlhf.experience"},
    "rlhf.scoring": {"models", "runtime", "rlhf.experience", "rlhf.regularizers", "rlhf.row_groups"},
    "rlhf.reward_sources": {"code_execution", "config", "models", "rlhf.experience", "rlhf.row_groups"},
    "rlhf.rlhf_engine": {"config", "engines", "models", "runtime", "rlhf.scoring"},
    "rlhf.ppo_updates": {
        "config", "data", "models", "runtime", "rlhf.experience", "rlhf.ppo_math", "rlhf.rlhf_engine",
        "rlhf.row_groups", "rlhf.scoring",
    },
    "rlhf.ppo_trainer": {
        "config", "data", "generation", "models", "runtime", "rlhf.experience", "rlhf.ppo_math", "rlhf.regularizers",
        "rlhf.reward_sources", "rlhf.rlhf_engine", "rlhf.rollout", "rlhf.scoring", "rlhf.constituency",
        "rlhf.macro_actions", "rlhf.ppo_updates", "rlhf.rollout_metrics", "rlhf.segmenter", "rlhf.shaping",
    },
    "rlhf.plan": {
        "config", "data", "engines", "models", "runtime", "preparation", "rlhf.reward_sources", "rlhf.rlhf_engine",
    },
    "rlhf.ppo_loop": {
        "config", "data", "loop", "runtime", "preparation", "rlhf.experience", "rlhf.ppo_trainer", "rlhf.rlhf_engine",
        "rlhf.rollout_metrics", "rlhf.plan",
    },
    "rlhf.run_ppo": {
        "config", "data", "generation", "loop", "runtime", "preparation", "rlhf.constituency", "rlhf.ppo_loop",
        "rlhf.ppo_trainer", "rlhf.regularizers", "rlhf.reward_sources", "rlhf.rlhf_engine", "rlhf.plan",
    },
}  # fmt: skip

# What a folder of scripts/ may import of the others; each may import the package.
SCRIPTS = {
    "toys": set(),
    "soak": {"toys"},
    "quickstart": set(),
    "compare_regularizers": {"quickstart"},
    "bench": set(),
}
LEAVES = {"errors", "checksums", "published"}

# Libraries that a part must do without.
FORBIDDEN_LIBRARIES = {
    "config": {"torch", "deepspeed", "transformers", "datasets", "numpy"},
    "code_execution": {"torch", "deepspeed", "transformers", "datasets", "numpy"},
    "optimal_transport": {"deepspeed", "transformers", "datasets", "numpy", "scipy"},
    "rlhf.ppo_math": {"deepspeed", "transformers"},
    "rlhf.experience": {"deepspeed", "transformers"},
    "rlhf.macro_actions": {"deepspeed", "transformers"},
    "rlhf.regularizers": {"deepspeed", "transformers"},
    "data": {"deepspeed"},
    "models": {"deepspeed"},
    "tools": {"deepspeed"},
}


def modules() -> list[tuple[str, Path]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found.append((".".join(p for p in parts if p != "__init__"), path))
    return [(name, path) for name, path in found if name]


def part_of(module: str) -> str:
    """The entry of ALLOWED that a module belongs to."""
    matches = [part for part in ALLOWED if module == part or module.startswith(part + ".")]
    return max(matches, key=len) if matches else module


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path} imports relatively"
            parts = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= parts if node.module == "dschat" else {node.module}
    return names


def test_every_module_has_a_rule() -> None:
    free = {*LEAVES, "rlhf"}
    assert [name for name, _ in modules() if part_of(name) not in ALLOWED and name not in free] == []


@pytest.mark.parametrize(("module", "path"), modules(), ids=lambda value: value if isinstance(value, str) else "")
def test_imports_go_one_way(module: str, path: Path) -> None:
    part = part_of(module)
    names = imported(path)
    inside = {name.removeprefix("dschat.") for name in names if name.startswith("dschat.")} - LEAVES
    wrong = {n for n in inside if part_of(n) != part and not any(
        n == a or n.startswith(a + ".") for a in ALLOWED.get(part, set()))}  # fmt: skip
    assert not wrong, f"{module} must not import {sorted(wrong)}"
    libraries = {name.split(".")[0] for name in names}
    assert not libraries & FORBIDDEN_LIBRARIES.get(part, set())


def test_the_sandbox_needs_the_standard_library_alone() -> None:
    """Its interpreter starts without site-packages, for each slot anew."""
    names = {name for path in (PACKAGE / "code_execution").rglob("*.py") for name in imported(path)}
    assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"dschat"}


def test_models_come_onto_deepspeed_in_one_place() -> None:
    """`deepspeed.initialize` is called in one file, whose functions `dschat.engines` alone calls."""

    def calls(path: Path, *names: str) -> bool:
        found = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
        return any(ast.unparse(function).split(".")[-1] in names for function in found)

    everywhere = [(name, path, path.read_text()) for name, path in modules()]
    initializing = {name for name, path, text in everywhere if "deepspeed.initialize(" in text}
    assert initializing == {"runtime.deepspeed_config"}
    makers = {
        name for name, path, _ in everywhere if calls(path, "training_engine", "frozen_model", "load_partitioned")
    }
    assert makers == {"engines"}


def test_the_trainer_names_no_concrete_variant() -> None:
    names = imported(PACKAGE / "rlhf" / "ppo_trainer.py")
    parts = ("dschat.generation", "dschat.rlhf.regularizers", "dschat.rlhf.reward_sources")
    assert {n for n in names if n.startswith(parts)} == {f"{part}.base" for part in parts}


def test_nothing_in_the_package_imports_the_front_ends() -> None:
    above = ("dschat.programs", "inference", "evaluation", "scripts", "tests")
    for name, path in modules():
        assert not [n for n in imported(path) if n.startswith(above)] or name.startswith("programs"), name


def test_scripts_import_no_tests_and_each_other_one_way() -> None:
    folders = REPOSITORY / "scripts"
    others = {"tests", "scripts", "inference", "evaluation", *SCRIPTS}
    for path in sorted(folders.rglob("*.py")):
        folder = path.relative_to(folders).parts[0].removesuffix(".py")
        used = {name.split(".")[0] for name in imported(path)} & others
        assert used <= {folder, *SCRIPTS.get(folder, set())}, path


def test_options_of_the_quickstarts_are_read_before_anything_is_installed() -> None:
    for name in ("options", "program_options"):
        names = imported(REPOSITORY / "scripts" / "quickstart" / f"{name}.py")
        assert {name.split(".")[0] for name in names} <= sys.stdlib_module_names | {"quickstart"}
        assert {name for name in names if name.startswith("quickstart")} <= {"quickstart.options"}


def test_nothing_puts_folders_before_others_on_the_path() -> None:
    here = Path(__file__)
    folders = [PACKAGE, *(REPOSITORY / name for name in ("inference", "evaluation", "scripts", "tests"))]
    files = [path for folder in folders for path in folder.rglob("*.py")]
    assert [path for path in files if path != here and "sys.path.insert" in path.read_text()] == []


def test_optimal_transport_works_without_deepspeed_and_transformers() -> None:
    code = "import sys, dschat.optimal_transport; sys.exit(bool({'deepspeed', 'transformers'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_settings_are_read_without_libraries_that_are_slow_to_import() -> None:
    slow = FORBIDDEN_LIBRARIES["config"]
    code = f"import sys, dschat.config.steps; sys.exit(bool({slow!r} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("main", sorted(REPOSITORY.glob("applications/DeepSpeed-Chat/training/*/main*.py")), ids=str)
def test_entry_points_stay_thin(main: Path) -> None:
    assert len(main.read_text().splitlines()) <= 30

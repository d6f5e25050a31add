"""One training run of the comparison, and what is measured on it.

The parts are those of `dschat.rlhf.run_ppo.run_ppo`, put together here so that the split of the data stays that
of the given models whatever the seed of a run, and so that the trained policy is measured before it is let go.
Legend: B prompts, R response, N response tokens, V vocabulary, K top tokens.
"""

from __future__ import annotations

import gc
import json
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from compare_regularizers.measures import Examiner
from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.errors import TrainingFault
from dschat.optimal_transport import TokenGeometry
from dschat.preparation import Prepared, continuation
from dschat.runtime.logging import set_up_logging
from quickstart.options import Options
from quickstart.summaries import FAST, FULL, Preset, plan

if TYPE_CHECKING:
    from dschat.rlhf.rlhf_engine import Checkpoints

PUBLISHED = {"transport": "truncated", "epsilon_unit": "cost", "epsilon": 0.01, "max_iter": 10}
# k2 = 32: a round of capped transport costs the cube of k2, and the masses beyond are small
CAPPED = {"transport": "capped", "epsilon_unit": "nearest", "epsilon": 0.2, "max_iter": 50, "tol": 1e-3, "top_k": 32}
DATA_SEED = 1234  # of the quickstart, whose split of the data is kept


@dataclass(frozen=True)
class Variant:
    """One way to regularize, with everything but its coefficient."""

    title: str
    section: type[DivergenceConfig] | type[WassersteinConfig]
    flags: Mapping[str, str | int | float]


VARIANTS: Mapping[str, Variant] = {
    "none": Variant("none", DivergenceConfig, {"f_div": "none"}),
    "kl": Variant("KL", DivergenceConfig, {"f_div": "rkl"}),
    "truncated": Variant("truncated, published", WassersteinConfig, PUBLISHED),
    "capped": Variant("capped", WassersteinConfig, CAPPED),
    "debiased": Variant("capped, debiased", WassersteinConfig, {**CAPPED, "debias": "true"}),
}


@dataclass(frozen=True)
class Settings:
    """What all runs of a comparison share."""

    models: str
    """Folder with sft/ and reward/, absolute."""
    output: str
    """Folder of the comparison, absolute."""
    steps: int
    """PPO steps of each run."""
    batch: int
    """Prompts per PPO step."""
    eval_prompts: int
    fast: bool
    """The flags of quickstart.sh --fast."""

    @property
    def preset(self) -> Preset:
        """The quickstart's flags."""
        return FAST if self.fast else FULL


@dataclass(frozen=True)
class Run:
    """One cell of the grid."""

    regularizer: str
    """A key of VARIANTS."""
    strength: float
    """The coefficient beta in units of the penalty's own scale, see `penalty_scale`; 0 for "none"."""
    seed: int

    @property
    def name(self) -> str:
        """Folder of the run."""
        return f"{self.regularizer}-{self.strength:g}-seed{self.seed}"


def penalty_scale(regularizer: str, geometry: TokenGeometry) -> float:
    """What one unit of strength is worth in the penalty's own unit, so that strengths mean about the same for all.

    KL: 1 nat. Truncated at the published setting: epsilon * (rounds - 1), the factor before the log-ratio in the closed
    form of an isolated token. Capped: far_cost, the largest cost of a token's move.
    """
    match regularizer:
        case "truncated":
            return float(PUBLISHED["epsilon"]) * (int(PUBLISHED["max_iter"]) - 1)
        case "capped" | "debiased":
            return geometry.far_cost
        case _:
            return 1.0


def ppo_config(settings: Settings, run: Run, folder: Path) -> PPOConfig:
    """The quickstart's step 3 with the run's regularizer and seed; beta (--kl_ctl) is still 0."""
    options = Options(output=Path(settings.models), fast=settings.fast, seed=DATA_SEED, overwrite=False)
    variant = VARIANTS[run.regularizer]
    stage_name = "wasserstein" if variant.section is WassersteinConfig else "kl"
    stage = next(stage for stage in plan(settings.preset, options, num_ranks=1) if stage.name == stage_name)
    flags = {
        **stage.flags, **variant.flags, "kl_ctl": 0, "seed": run.seed, "max_steps": settings.steps, "eval_steps": 0,
        "output_dir": str(folder), "data_output_path": str(Path(settings.output) / "data_cache"),
        "actor_zero_stage": 0, "critic_zero_stage": 0, "save_only_model": True,
        "per_device_generation_batch_size": settings.batch,
        "per_device_training_batch_size": settings.batch,
    }  # fmt: skip
    words = [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return parse_ppo_config(words, regularizer=variant.section)


def train_and_measure(settings: Settings, run: Run) -> dict[str, Any]:
    """Train one run from the given checkpoints and measure it; what it says on the way goes to its run.log.

    Returns:
        A line of results.jsonl: the run, beta, what was measured on its own answers (`own`), on the reference's answers
        (`common`), and on the untrained policy (`reference`); or the run and the `fault` that ended it.
    """
    folder = Path(settings.output) / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left
    folder.mkdir(parents=True)
    started = time.perf_counter()
    with (folder / "run.log").open("w", encoding="utf-8") as log, redirect_stdout(log):
        try:
            result = _train_and_measure(settings, run, folder)
        except TrainingFault as fault:
            result = {**asdict(run), "fault": str(fault)}
    gc.collect()  # engines hold cycles
    return {**result, "seconds": round(time.perf_counter() - started, 1)}


def _train_and_measure(settings: Settings, run: Run, folder: Path) -> dict[str, Any]:
    # imported here: DeepSpeed takes seconds, and the process that only plans has no use for it
    from dschat.rlhf.plan import Plan
    from dschat.rlhf.rlhf_engine import DeepSpeedRLHFEngine
    from dschat.rlhf.run_ppo import build_ppo, train_ppo

    config = ppo_config(settings, run, folder)
    set_up_logging()  # of this run's log
    prepared, checkpoints = _prepare(settings)
    prepared = replace(prepared, output=folder)
    logging.getLogger("transformers").setLevel(logging.ERROR)
    batches = config.batches(1)
    steps = Plan(batches, settings.steps, settings.steps * batches.updates)
    torch.manual_seed(run.seed)
    engine = DeepSpeedRLHFEngine(config, checkpoints, total_updates=steps.updates, device=prepared.device)
    geometry = TokenGeometry.from_embeddings(
        engine.reference_embeddings(), num_neighbors=int(settings.preset.wasserstein["cost_dim"]), metric="l2",
        gaps=engine.vocabulary.gaps,
    )  # fmt: skip
    scale = penalty_scale(run.regularizer, geometry)
    config = replace(config, ppo=replace(config.ppo, kl_ctl=run.strength / scale))
    parts = build_ppo(config, engine)
    rows = prepared.data.evaluation
    examiner = Examiner(
        engine, config.rollout, parts.reward_source, engine.tokenizer, parts.generator, geometry,
        device=prepared.device, rows=[rows[index] for index in range(min(settings.eval_prompts, len(rows)))],
    )  # fmt: skip
    common = examiner.sample()  # the policy is still the reference
    reference = examiner.measure(common)
    train_ppo(config, prepared, parts, steps, continuation(config, prepared, {}))
    own = examiner.sample()
    (folder / "answer.json").write_text(json.dumps(examiner.trace(own), indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder / f"step-{settings.steps}" / "critic")
    (folder / "critic").unlink(missing_ok=True)
    return {
        **asdict(run), "beta": config.ppo.kl_ctl, "own": asdict(examiner.measure(own)),
        "common": asdict(examiner.measure(common)), "reference": asdict(reference),
        "far_cost": geometry.far_cost, "nearest_distance": geometry.nearest_distance,
    }  # fmt: skip


@cache
def _prepare(settings: Settings) -> tuple[Prepared, Checkpoints]:
    """Data and checkpoints, once per process: to find out that the cached data are up to date takes seconds.

    The split of the data is that of the models' own seed, whatever the seeds of the runs.
    """
    from dschat.rlhf.plan import prepare_ppo

    config = ppo_config(settings, Run("none", 0.0, DATA_SEED), Path(settings.output) / "runs")
    return prepare_ppo(config)

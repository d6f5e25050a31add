"""Macro actions in whole runs: every regularizer and micro-batch size; one token per segment is plain PPO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from dschat.rlhf import ppo_trainer
from dschat.rlhf.constituency import Constituent
from dschat.rlhf.experience import Rollout
from dschat.rlhf.ppo_math import generalized_advantages
from dschat.rlhf.reward_sources import RewardSource, SequenceScores
from toys.jobs import Job, make_folders, ppo_arguments, run_job, without_times

TOLERANCE = 2e-4  # relative, float32, five optimizer steps with sums in another order
CONDITIONS = {
    "fixed": "--ngram 2 --value_function position",
    "randomized": "--termination_condition randomized --repeat_times 1 --value_function unit",
    "ppl": "--termination_condition ppl",
    "parsing": "--termination_condition parsing --parser_cutoff 4 --ngram 2",
}
REGULARIZERS = {"rkl": ("ppo", ""), "js": ("ppo", "--f_div js"), "wasserstein": ("wpr", "--top_k 8 --cost_dim 16")}


class HalvesParser:
    """Two phrases of equal length; nothing where the first character's number is even."""

    def parse(self, texts: Sequence[str]) -> list[tuple[Constituent, ...] | None]:
        return [self._halves(text) if ord(text[0]) % 2 else None for text in texts]

    @staticmethod
    def _halves(text: str) -> tuple[Constituent, ...]:
        at = [i for i in range(len(text)) if not text[i].isspace()]
        middle = len(at) // 2
        halves = [at[:middle], at[middle:]] if middle else [at]
        return tuple(Constituent(half[0], tuple(map(Constituent, half))) for half in halves)


class LengthReward(RewardSource):
    """The number of characters."""

    def score(self, rollout: Rollout) -> SequenceScores:
        return SequenceScores(torch.tensor([float(len(answer)) for answer in rollout.answers]) / 10)


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize("value_function", ["equal", "position"])
def test_segments_of_one_token_train_as_plain_ppo_bit_for_bit(
    value_function: str, paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = f"--termination_condition fixed --ngram 1 --value_function {value_function} --ppo_epochs 2"
    ours = run_job(Job("ppo", ppo_arguments(paths, tmp_path / "segments", flags)))

    def plain(rewards: Tensor, values: Tensor, mask: Tensor, *_: Any, gamma: float, lam: float, **__: Any) -> Any:
        return generalized_advantages(rewards, values, mask, gamma=gamma, lam=lam)

    monkeypatch.setattr(ppo_trainer, "segment_advantages", plain)
    theirs = run_job(Job("ppo", ppo_arguments(paths, tmp_path / "plain", "--ppo_epochs 2")))
    assert len(ours) == 5
    assert without_times(ours) == without_times(theirs)
    assert "segments" not in ours[0]
    for role in ("actor", "critic"):
        mine, other = (load_file(tmp_path / run / role / "model.safetensors") for run in ("segments", "plain"))
        assert all(torch.equal(weight, other[name]) for name, weight in mine.items())


@pytest.mark.parametrize("regularizer", REGULARIZERS)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_eight_rows_together_train_as_eight_rows_one_by_one(
    condition: str, regularizer: str, paths: dict[str, str], tmp_path: Path
) -> None:
    step, flags = REGULARIZERS[regularizer]
    flags = f"{CONDITIONS[condition]} {flags} --max_steps 3"
    one_by_one = (
        "--per_device_generation_batch_size 1 --per_device_training_batch_size 1 --gradient_accumulation_steps 8"
    )
    runs = [
        run_job(
            Job(step, ppo_arguments(paths, tmp_path / name, f"{flags} {extra}"), fixed_answers=True),
            parser=HalvesParser(),
            reward_source=LengthReward() if regularizer == "js" else None,
        )
        for name, extra in (("together", ""), ("alone", one_by_one))
    ]
    names = ("segments", "segment_length", "unparsed_share", "advantage", "return", "actor_loss", "critic_loss")
    for together, alone in zip(*runs, strict=True):
        assert together["segment_length"] > 1
        for name in names:
            assert together[name] == pytest.approx(alone[name], rel=TOLERANCE, abs=2e-5), name
    if condition == "parsing":
        assert 0 < runs[0][0]["unparsed_share"] < 1

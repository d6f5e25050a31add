"""Running score statistics, the adaptive coefficient, and what shaping does to rewards."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.shaping import RewardShaper, RunningMoments, adapted_coefficient
from tests.config import commands

CPU = torch.device("cpu")


def config_of(extra: str, section: type = DivergenceConfig) -> PPOConfig:
    words = commands.WASSERSTEIN if section is WassersteinConfig else commands.PPO
    return parse_ppo_config([*words, *extra.split()], regularizer=section)


def make_experience(score: Tensor, penalty: Tensor, mask: Tensor) -> Experience:
    nothing = torch.zeros(mask.shape)
    return Experience(
        sequences=nothing.long(), attention_mask=mask.long(), response_mask=mask, log_probs=nothing, score=score,
        penalty=penalty, values=nothing, advantages=nothing, returns=nothing,
    )  # fmt: skip


def make_rollout(mask: Tensor, ended: list[bool]) -> Rollout:
    rows = len(ended)
    return Rollout(mask.long(), mask.long(), mask, torch.tensor(ended), ({},) * rows, ("",) * rows, ("",) * rows)


def steps_of_experience(count: int) -> list[Experience]:
    """Rows of unequal lengths; every third answer is unusable and its score must not count."""
    found = []
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        mask = torch.arange(4)[None] < torch.tensor([1, 4, 0, 3, 2, 0])[:, None]
        score = torch.where(mask.any(-1), 4 + 3 * torch.randn(6, generator=generator), 1e6)
        found.append(make_experience(score, torch.rand(6, 4, generator=generator), mask))
    return found


def usable_scores(experiences: list[Experience]) -> list[float]:
    return [s for e in experiences for s, m in zip(e.score.tolist(), e.response_mask, strict=True) if m.any()]


def test_running_moments_are_those_of_everything_seen() -> None:
    parts = [[1.0, 2.0, 7.0], [], [-4.0], [100.0, 101.0]]
    moments = RunningMoments()
    assert moments.std == 1.0
    for part in parts:
        moments = moments.joined(len(part), sum(part), sum(x * x for x in part))
    everything = [x for part in parts for x in part]
    assert moments.count == 6
    assert moments.mean == pytest.approx(statistics.fmean(everything))
    assert moments.std == pytest.approx(statistics.pstdev(everything))


def test_scores_are_normalized_by_the_steps_before() -> None:
    shaper, experiences = RewardShaper(config_of("--normalize_rewards")), steps_of_experience(3)
    score = torch.tensor([0.0, 10.0])
    assert torch.equal(shaper.normalized(score), score)
    for number, experience in enumerate(experiences, start=1):
        sums = shaper.observe(experience)
        seen = usable_scores(experiences[:number])
        expected = [(s - statistics.fmean(seen)) / statistics.pstdev(seen) for s in score.tolist()]
        assert shaper.normalized(score).tolist() == pytest.approx(expected, rel=1e-5)
        if number > 1:
            before = usable_scores(experiences[: number - 1])
            recorded = sums.means(CPU)
            assert recorded["running_reward_mean"] == pytest.approx(statistics.fmean(before))
            assert recorded["running_reward_std"] == pytest.approx(statistics.pstdev(before))


def test_default_shaping_changes_and_records_nothing() -> None:
    shaper = RewardShaper(config_of(""))
    before = shaper.state_dict()
    assert shaper.observe(steps_of_experience(1)[0]).means(CPU) == {}
    assert shaper.state_dict() == before
    score = torch.tensor([-9.0, 1.0])
    assert shaper.normalized(score) is score
    mask = torch.ones(2, 2, dtype=torch.bool)
    rewards = shaper.rewards(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), score, make_rollout(mask, [True, False]))
    expected = torch.tensor([[-0.05, -0.1 - 2.5], [-0.15, -0.2 + 1.0]])
    torch.testing.assert_close(rewards, expected)


def test_answers_without_an_end_pay() -> None:
    shaper = RewardShaper(config_of("--missing_eos_penalty 0.75 --kl_ctl 0"))
    mask = torch.ones(2, 2, dtype=torch.bool)
    rewards = shaper.rewards(torch.zeros(2, 2), torch.tensor([-9.0, -9.0]), make_rollout(mask, [True, False]))
    assert rewards.tolist() == [[0, -2.5], [0, -3.25]]


@pytest.mark.parametrize(
    ("section", "flags", "expected"),
    [
        (DivergenceConfig, "", None),
        (DivergenceConfig, "--f_div js", 2.5),
        (DivergenceConfig, "--f_div chi --penalty_clip 0", None),
        (DivergenceConfig, "--penalty_clip 1", 1.0),
        (WassersteinConfig, "", None),
        (WassersteinConfig, "--penalty_clip 0.5", 0.5),
    ],
)
def test_penalty_clip_is_the_published_one_unless_asked_for(section: type, flags: str, expected: float | None) -> None:
    config = config_of(f"--kl_ctl 0.1 {flags}", section)
    assert config.effective_penalty_clip == expected
    far = torch.tensor([[-1e4, 1e4]])
    clipped = RewardShaper(config).clipped_penalty(far)
    bound = 1e4 if expected is None else expected / 0.1
    torch.testing.assert_close(clipped, torch.tensor([[-bound, bound]]))


@pytest.mark.parametrize(("penalty", "factor"), [(2.0, 1.02), (1.1, 1.01), (1.0, 1.0), (0.95, 0.995), (-7.0, 0.98)])
def test_coefficient_moves_in_proportion_to_a_bounded_error(penalty: float, factor: float) -> None:
    adapted = adapted_coefficient(0.3, penalty, target=1.0, answers=1000, horizon=10_000)
    assert adapted == pytest.approx(0.3 * factor)


@pytest.mark.parametrize(("start", "section"), [(0.01, DivergenceConfig), (1.0, WassersteinConfig)])
def test_coefficient_finds_the_one_that_keeps_the_target(start: float, section: type) -> None:
    # a policy whose penalty falls as its coefficient rises: at 0.1 it is 0.5
    shaper = RewardShaper(config_of(f"--kl_ctl {start} --penalty_target 0.5 --penalty_horizon 20", section))
    mask = torch.ones(6, 3, dtype=torch.bool)
    for _ in range(300):
        penalty = torch.full((6, 3), 0.05 / shaper.state_dict()["penalty_coef"])
        shaper.observe(make_experience(torch.zeros(6), penalty, mask))
    assert shaper.state_dict()["penalty_coef"] == pytest.approx(0.1, rel=1e-2)
    rewards = shaper.rewards(torch.ones(6, 3), torch.zeros(6), make_rollout(mask, [True] * 6))
    torch.testing.assert_close(rewards, torch.full((6, 3), -0.1), rtol=1e-2, atol=0)


def test_state_goes_through_json_and_training_goes_on_alike(tmp_path: Path) -> None:
    flags = "--normalize_rewards --penalty_target 0.2 --penalty_horizon 50"
    first, experiences = RewardShaper(config_of(flags)), steps_of_experience(6)
    for experience in experiences[:3]:
        first.observe(experience)
    (tmp_path / "state.json").write_text(json.dumps(first.state_dict()))
    second = RewardShaper(config_of(flags))
    assert second.state_dict() != first.state_dict()
    second.load_state_dict(json.loads((tmp_path / "state.json").read_text()))
    for experience in experiences[3:]:
        for shaper in (first, second):
            shaper.observe(experience)
    assert first.state_dict() == second.state_dict()
    score = torch.tensor([1.0, 5.0])
    assert torch.equal(first.normalized(score), second.normalized(score))

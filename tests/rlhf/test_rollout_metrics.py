"""What a rollout leaves in the log, against sums by hand: rows and tokens that take no part count nowhere."""

from __future__ import annotations

import pytest
import torch

from dschat.rlhf.experience import Experience, Rollout
from dschat.rlhf.reward_sources.base import SequenceScores
from dschat.rlhf.rollout_metrics import (
    penalty_cost_sums,
    rollout_sums,
    scored_answers,
    segment_sums,
    speed_sums,
    verdict_sums,
)
from dschat.rlhf.scoring import ModelOutputs, PenaltyCost
from dschat.rlhf.segmenter import Segments
from dschat.runtime.metrics import Sums

NAN = float("nan")
MASK = torch.tensor([[True, True, True], [True, False, False], [False, False, False]])  # the last row is unusable
JUNK = 99.0  # off the mask and in the unusable row


def table(values: list[list[float]]) -> torch.Tensor:
    return torch.where(MASK, torch.tensor(values), JUNK)


ROLLOUT = Rollout(
    sequences=torch.zeros(3, 5, dtype=torch.int64), attention_mask=torch.ones(3, 5, dtype=torch.int64),
    response_mask=MASK, ended=torch.tensor([True, False, True]), records=({}, {}, {}), prompts=("a", "b", "c"),
    answers=("x", "y", "z"),
)  # fmt: skip
EXPERIENCE = Experience(
    sequences=ROLLOUT.sequences, attention_mask=ROLLOUT.attention_mask, response_mask=MASK,
    log_probs=table([[0.0] * 3] * 3), score=torch.tensor([2.0, -1.0, JUNK]),
    penalty=torch.where(MASK, torch.tensor([[1.0, 2.0, 3.0], [4.0, 0.0, 0.0], [0.0] * 3]), 0.0),
    values=table([[1.0] * 3] * 3), advantages=table([[0.5] * 3] * 3),
    returns=table([[3.0, 3.0, 3.0], [7.0] * 3, [0.0] * 3]),
)  # fmt: skip
OUTPUTS = ModelOutputs(
    log_probs=table([[-1.0] * 3] * 3), reference_log_probs=table([[-1.5] * 3] * 3), penalty=EXPERIENCE.penalty,
    values=EXPERIENCE.values, penalty_metrics={"epsilon": torch.tensor(2.0)}, penalty_cost=PenaltyCost(),
)  # fmt: skip


def means(sums: Sums) -> dict[str, float]:
    return sums.means(torch.device("cpu"))


def test_means_are_over_usable_answers_and_their_tokens() -> None:
    found = rollout_sums(ROLLOUT, OUTPUTS, EXPERIENCE, clipped=torch.tensor([True, False, True]))
    assert means(found) == pytest.approx(
        {
            "reward": 0.5, "reward_square": 2.5, "clipped_reward_share": 0.5, "response_length": 2.0,
            "ended_share": 0.5, "penalty_per_answer": 5.0, "penalty": 2.5, "log_ratio": 0.5, "value": 1.0,
            "return": 4.0, "advantage": 0.5, "usable_share": 2 / 3,
        }
    )  # fmt: skip


def test_a_verdicts_metrics_are_over_the_answers_that_have_one() -> None:
    verdict = SequenceScores(torch.zeros(3), {"pass_rate": torch.tensor([1.0, NAN, 0.5])})
    assert means(verdict_sums(verdict, OUTPUTS, ROLLOUT)) == pytest.approx({"pass_rate": 0.75, "epsilon": 0.5})


def test_segments_and_speed() -> None:
    starts = torch.tensor([[True, False, True], [True, False, False], [False, False, False]])
    found = segment_sums(ROLLOUT, Segments(starts, torch.tensor([False, True, False])))
    found = found + speed_sums("scoring", torch.tensor(30.0), 2.0) + penalty_cost_sums(PenaltyCost(0.5))
    assert means(found) == pytest.approx(
        {
            "segments": 1.5, "segment_length": 4 / 3, "unparsed_share": 0.5, "scoring_seconds": 2.0,
            "scoring_tokens_per_second": 15.0, "penalty_seconds": 0.5,
        }
    )  # fmt: skip
    assert means(penalty_cost_sums(PenaltyCost(0.5, 3 * 2**20)))["penalty_peak_mebibytes"] == 3.0


def test_texts_come_with_their_score_and_penalty_per_token() -> None:
    found = scored_answers(ROLLOUT, EXPERIENCE)
    assert (found.prompts, found.answers) == (ROLLOUT.prompts, ROLLOUT.answers)
    assert found.penalties == [2.0, 4.0, 0.0]
    assert found.scores[:2] == [2.0, -1.0]

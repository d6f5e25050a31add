"""Rewards from unit tests: pairing of answers and problems, what is left ungraded, whole runs."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from dschat.code_execution.apps_tests import Outcome, TestReport
from dschat.code_execution.pool import Grading, Job, ungraded
from dschat.config.regularizers import DivergenceConfig
from dschat.config.rewards import UnitTestRewardConfig
from dschat.config.steps import parse_ppo_config
from dschat.data.batches import PromptBatch
from dschat.errors import TrainingFault, UserError
from dschat.models.checked import check_model
from dschat.models.reward_model import has_head
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources.unit_tests import UnitTestReward
from dschat.rlhf.run_ppo import run_ppo
from tests.code_execution.processes import descendants
from toys import jobs
from toys.jobs import make_folders, ppo_arguments, run_job, write_problems
from toys.tokenizers import make_tokenizer

ANSWERS = ("print(0)", "", "```python\nprint(2)\n```", "broken", "lost")
UNUSABLE = 1


class FakePool:
    """Reports that depend on the program; notes what it was asked."""

    description = "fake"

    def __init__(self) -> None:
        self.batches: list[list[Job]] = []
        self.closed = False

    def submit(self, batch: Sequence[Job]) -> Grading:
        self.batches.append(list(batch))
        pool = self

        class Done(Grading):
            def results(self) -> list[TestReport]:
                return [pool.report(program) for program, _ in batch]

        return Done([], cached=[number == 0 for number, _ in enumerate(batch)], deadline=0.0)

    @staticmethod
    def report(program: str) -> TestReport:
        if program == "lost":
            return ungraded("no sandbox")
        if program == "broken":
            return TestReport((Outcome.COMPILE_ERROR,) * 2, ("no",) * 2, -1.0, cpu_seconds=0.5)
        return TestReport((Outcome.PASS, Outcome.WRONG), ("", "no"), 0.35, cpu_seconds=2.0)

    def close(self) -> None:
        self.closed = True


def rollout(answers: Sequence[str] = ANSWERS) -> Rollout:
    rows = len(answers)
    mask = torch.ones(rows, 3, dtype=torch.bool)
    mask[UNUSABLE] = False
    return Rollout(
        sequences=torch.zeros(rows, 5, dtype=torch.int64),
        attention_mask=torch.ones(rows, 5, dtype=torch.int64),
        response_mask=mask,
        ended=torch.ones(rows, dtype=torch.bool),
        records=tuple({"input_output": {"inputs": [str(n)], "outputs": [str(n)]}} for n in range(rows)),
        prompts=("",) * rows,
        answers=tuple(answers),
    )


def values(tensor: Tensor) -> list[float | None]:
    """Numbers, None for NaN."""
    return [None if math.isnan(value) else round(value, 6) for value in tensor.tolist()]


def test_every_usable_answer_is_graded_on_the_tests_of_its_own_problem() -> None:
    pool = FakePool()
    source = UnitTestReward(pool)
    source.begin(rollout())
    [batch] = pool.batches
    assert [program for program, _ in batch] == ["print(0)", "print(2)\n", "broken", "lost"]
    assert [tests["inputs"] for _, tests in batch] == [["0"], ["2"], ["3"], ["4"]]


def test_scores_and_metrics_stand_at_the_rows_they_belong_to() -> None:
    verdict = UnitTestReward(FakePool()).score(rollout())
    assert verdict.values.dtype == torch.float32
    assert values(verdict.values) == [0.35, None, 0.35, -1.0, None]
    expected = {
        "test_pass_rate": [0.5, None, 0.5, 0.0, None],
        "strict_pass_rate": [0.0, None, 0.0, 0.0, None],
        "ungraded_share": [0.0, None, 0.0, 0.0, 1.0],
        "grading_cache_hits": [1.0, None, 0.0, 0.0, 0.0],
        "grading_cpu_seconds": [0.0, None, 2.0, 0.5, 0.0],
        "test_wrong_share": [0.5, None, 0.5, 0.0, None],
        "test_compile_error_share": [0.0, None, 0.0, 1.0, None],
        "test_time_limit_share": [0.0, None, 0.0, 0.0, None],
    }
    assert {name: values(verdict.metrics[name]) for name in expected} == expected
    assert {len(metric) for metric in verdict.metrics.values()} == {5}


def test_work_begun_is_not_begun_again() -> None:
    pool = FakePool()
    source = UnitTestReward(pool)
    first, second = rollout(), rollout()
    source.begin(first)
    source.score(first)
    assert len(pool.batches) == 1
    source.begin(first)
    source.score(second)
    assert len(pool.batches) == 3


def test_a_rollout_without_a_usable_answer_has_no_score() -> None:
    empty = rollout().without(torch.ones(5, dtype=torch.bool))
    assert values(UnitTestReward(FakePool()).score(empty).values) == [None] * 5


def test_a_run_of_which_nothing_can_be_graded_any_more_is_given_up() -> None:
    source = UnitTestReward(FakePool())
    lost, mixed = rollout(("lost",) * 5), rollout()
    nobody = mixed.without(torch.ones(5, dtype=torch.bool))
    # two of them are tolerated again and again; a batch without answers says nothing
    for batch in (lost, lost, mixed, lost, nobody, lost):
        source.score(batch)
    with pytest.raises(TrainingFault, match=r"no answer of the last 3 rollout batches could be graded \(no sandbox\)"):
        source.score(lost)


def test_a_record_without_tests_is_not_graded() -> None:
    pool = FakePool()
    UnitTestReward(pool).begin(
        Rollout(**{**vars(rollout()), "records": ({}, {}, {"input_output": None}, {"input_output": {}}, {})})
    )
    assert [tests for _, tests in pool.batches[0]] == [{}] * 4


def test_closing_the_source_closes_the_pool() -> None:
    pool = FakePool()
    UnitTestReward(pool).close()
    assert pool.closed


FLAGS = "--data_format codeparrot/apps --apps_prompt published --grading_workers 2 --max_steps 2 --eval_steps 2"


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("apps")
    return make_folders(folder) | {"data": str(write_problems(folder / "problems.jsonl"))}


def even_numbers_alone(prompts: PromptBatch) -> Tensor:
    """Programs that print the number that the problem asks for, if it is even; [B, R]."""
    tokenizer = make_tokenizer()
    rows = []
    for ids in prompts.input_ids:
        found = re.search(r"Print (\d+)\.", tokenizer.decode(ids))
        assert found is not None
        number = int(found[1])
        rows.append(tokenizer(f"print({number - number % 2})", add_special_tokens=False)["input_ids"])
    width = max(map(len, rows)) + 1
    end = int(tokenizer.eos_token_id)
    return torch.tensor([row + [end] * (width - len(row)) for row in rows])


def without_critic(arguments: list[str]) -> list[str]:
    at = arguments.index("--critic_model_name_or_path")
    return arguments[:at] + arguments[at + 2 :]


@pytest.mark.parametrize("step", ["apps", "wpr_apps"])
def test_a_run_needs_no_reward_model_and_grades_every_answer_on_its_own_problem(
    step: str,
    paths: dict[str, str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(jobs, "answer_by_prompt", even_numbers_alone)
    before = descendants(os.getpid())
    extra = FLAGS + (" --top_k 8 --cost_dim 16" if step == "wpr_apps" else "")
    arguments = without_critic(ppo_arguments(paths, tmp_path / "out", extra))
    lines = run_job(jobs.Job(step, arguments, fixed_answers=True))
    training = [line for line in lines if "reward" in line]
    assert len(training) == 2
    for line in training:
        # a right program passes both tests, another one none: the score tells the share of even problems
        assert line["reward"] == pytest.approx(-0.3 + 1.3 * line["strict_pass_rate"])
        assert line["test_pass_rate"] == line["strict_pass_rate"] == pytest.approx(1 - line["test_wrong_share"])
        assert line["ungraded_share"] == line["test_runtime_error_share"] == 0.0
        assert line["usable_share"] == 1.0
    assert 0 < training[0]["strict_pass_rate"] < 1
    assert training[0]["strict_pass_rate"] * 8 == pytest.approx(round(training[0]["strict_pass_rate"] * 8))
    assert {"eval_test_pass_rate", "eval_strict_pass_rate"} <= set(training[-1])
    assert has_head(check_model("critic_model_name_or_path", str(tmp_path / "out/critic")))
    assert descendants(os.getpid()) == before
    assert f"the critic starts from {paths['sft']} with a new score head" in capsys.readouterr().out


def test_the_critic_may_be_named(paths: dict[str, str], tmp_path: Path) -> None:
    lines = run_job(jobs.Job("apps", ppo_arguments(paths, tmp_path / "out", FLAGS + " --max_steps 1")))
    assert lines[-1]["reward"] is not None


def test_data_without_tests_is_refused(paths: dict[str, str], tmp_path: Path) -> None:
    pairs = str(jobs.write_pairs(tmp_path / "pairs.jsonl"))
    arguments = ppo_arguments(paths | {"data": pairs}, tmp_path / "out", "--grading_workers 1")
    with pytest.raises(UserError, match="holds no problems with tests; pass codeparrot/apps, tiny-apps"):
        run_job(jobs.Job("apps", arguments))


def test_a_missing_sandbox_is_one_sentence_before_any_model_is_read(paths: dict[str, str], tmp_path: Path) -> None:
    nowhere: dict[str, Any] = paths | {"sft": str(tmp_path / "nowhere")}
    arguments = ppo_arguments(nowhere, tmp_path / "out", FLAGS + " --code_sandbox none")
    with pytest.raises(UserError, match="refusing to run model-written code"):
        run_job(jobs.Job("apps", arguments))


def test_a_dry_run_opens_the_sandbox_and_counts_three_models(
    paths: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = without_critic(ppo_arguments(paths, tmp_path / "out", FLAGS + " --dry_run"))
    run_ppo(parse_ppo_config(arguments, regularizer=DivergenceConfig, reward=UnitTestRewardConfig))
    printed = capsys.readouterr().out
    assert "programs are graded by 2 processes, each in: " in printed
    assert all(role in printed for role in ("actor", "reference", "critic"))
    assert "reward model:" not in printed
    assert not (tmp_path / "out/metrics.jsonl").exists()

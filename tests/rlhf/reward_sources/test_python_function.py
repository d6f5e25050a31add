"""Rewards from Python functions: alone, several, beside the reward model; mistakes cost one sentence."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dschat.config.rewards import LearnedRewardConfig
from dschat.errors import UserError
from dschat.rlhf import rlhf_engine
from dschat.rlhf.experience import Rollout
from dschat.rlhf.reward_sources import build_reward_source, check_reward_source
from dschat.rlhf.reward_sources.python_function import FunctionReward
from dschat.rlhf.reward_sources.weighted_sum import WeightedSum
from tests.launch import REPOSITORY
from toys.jobs import Job, make_folders, ppo_arguments, run_job

MODULE = """
import math
from functools import partial
import torch
import numpy as np

SEEN = []

def words(prompts, answers, records):
    SEEN.append((prompts, answers, records))
    return [float(len(answer.split())) for answer in answers]

def characters(prompts, answers, records):
    return torch.tensor([len(answer) for answer in answers], dtype=torch.int64)

def reference(prompts, answers, records):
    return np.array([len(record["chosen"]) for record in records])

def one_short(prompts, answers, records):
    return [1.0] * (len(answers) - 1)

def not_a_number(prompts, answers, records):
    return [1.0] + [math.nan] * (len(answers) - 1)

def table(prompts, answers, records):
    return torch.zeros(len(answers), 2)

def text(prompts, answers, records):
    return ["good"] * len(answers)

def nothing(prompts, answers, records):
    return None

def two(prompts, answers):
    return [0.0] * len(answers)

NUMBER = 3
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The user's module, in the working directory."""
    folder = tmp_path / "here"
    folder.mkdir()
    (folder / "toy_rewards.py").write_text(MODULE)
    (folder / "broken_rewards.py").write_text("import no_such_library\n")
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("toy_rewards", "broken_rewards", "brevity"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def make_rollout(answers: list[str], usable: list[bool]) -> Rollout:
    mask = torch.tensor(usable)[:, None].expand(-1, 3)
    rows = len(answers)
    return Rollout(
        mask.long(), mask.long(), mask, torch.tensor(usable), tuple({"chosen": "x" * i} for i in range(rows)),
        tuple(f"prompt {i}" for i in range(rows)), tuple(answers),
    )  # fmt: skip


ROLLOUT = make_rollout(["a bb", "ccc", "", "d e f"], [True, True, False, True])


def build(*functions: str, weights: tuple[float, ...] = (), model: float = 0.0) -> Any:
    config = LearnedRewardConfig([f"toy_rewards:{f}" for f in functions], list(weights), model)
    check_reward_source(config)
    return build_reward_source(config, reward_model=None)


@pytest.mark.parametrize(
    ("function", "expected"), [("words", [2, 1, 0, 3]), ("characters", [4, 3, 0, 5]), ("reference", [0, 1, 0, 3])]
)
def test_lists_tensors_and_arrays_are_scores(function: str, expected: list[float]) -> None:
    source = build(function)
    assert isinstance(source, FunctionReward)
    scores = source.score(ROLLOUT).values
    assert scores.dtype == torch.float32
    assert scores.tolist() == expected


def test_functions_see_prompts_answers_and_records_of_the_whole_batch() -> None:
    source = build("words")
    source.score(ROLLOUT)
    import toy_rewards

    prompts, answers, records = toy_rewards.SEEN[-1]
    assert prompts == list(ROLLOUT.prompts)
    assert answers == list(ROLLOUT.answers)
    assert records == list(ROLLOUT.records)


def test_several_functions_are_summed_with_their_weights() -> None:
    source = build("words", "characters", weights=(2.0, -0.5))
    assert isinstance(source, WeightedSum)
    assert source.score(ROLLOUT).values.tolist() == [2 * 2 - 2, 2 - 1.5, 0, 6 - 2.5]
    assert build("words", "characters").score(ROLLOUT).values.tolist() == [6, 4, 0, 8]
    assert build("words", weights=(3.0,)).score(ROLLOUT).values.tolist() == [6, 3, 0, 9]


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("toy_rewards", "must look like package.module:function"),
        ("toy_rewards:", "must look like package.module:function"),
        ("no_rewards:f", "there is no module no_rewards in "),
        ("toy_rewards.inner:f", "there is no module toy_rewards.inner"),
        ("toy_rewards:word", "has no function word; did you mean words?"),
        ("toy_rewards:NUMBER", "has no function NUMBER"),
        ("toy_rewards:two", "must take (prompts, answers, records)"),
    ],
)
def test_functions_that_cannot_be_called_are_refused_before_anything_is_loaded(name: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_reward_source(LearnedRewardConfig([name]))
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_library_that_the_users_module_lacks_is_not_blamed_on_the_flag() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        check_reward_source(LearnedRewardConfig(["broken_rewards:f"]))


@pytest.mark.parametrize(
    ("function", "sentence"),
    [
        ("one_short", "returned 3 scores for 4 answers; it must give one for each"),
        ("table", "returned scores of shape [4, 2] for 4 answers"),
        ("not_a_number", "returned nan for the answer 'ccc'; scores must be finite"),
        ("text", "returned list that is no list of numbers"),
        ("nothing", "returned NoneType that is no list of numbers"),
    ],
)
def test_wrong_results_get_one_sentence(function: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        build(function).score(ROLLOUT)
    assert sentence in str(caught.value)
    assert f"--reward_function toy_rewards:{function}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_scores_of_unusable_rows_are_ignored() -> None:
    rollout = make_rollout(["a", "b", "c"], [True, False, False])
    assert build("not_a_number").score(rollout).values.tolist() == [1, 0, 0]


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("models"))


def train(paths: dict[str, str], output: Path, flags: str) -> list[dict[str, Any]]:
    return run_job(Job("ppo", ppo_arguments(paths, output, flags), fixed_answers=True))


def test_a_function_beside_the_reward_model_adds_to_its_score(paths: dict[str, str], tmp_path: Path) -> None:
    once = "--max_steps 1 "
    learned = train(paths, tmp_path / "l", once)[0]["reward"]
    alone = train(paths, tmp_path / "f", f"{once} --reward_function toy_rewards:words --reward_model_weight 0")[0]
    both = train(
        paths, tmp_path / "b",
        f"{once} --reward_function toy_rewards:words --reward_function_weight 0.5 --reward_model_weight 2",
    )[0]  # fmt: skip
    assert both["reward"] == pytest.approx(2 * learned + 0.5 * alone["reward"], rel=1e-5)


def test_without_the_reward_model_none_is_loaded(
    paths: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = []
    load = rlhf_engine.load_token_scorer
    monkeypatch.setattr(rlhf_engine, "load_token_scorer", lambda *a, **k: loaded.append(a) or load(*a, **k))
    train(paths, tmp_path / "1", "--max_steps 1 --reward_function toy_rewards:words --reward_model_weight 0")
    assert len(loaded) == 1  # the critic
    train(paths, tmp_path / "2", "--max_steps 1")
    assert len(loaded) == 3


@pytest.mark.parametrize("flags", ["--reward_model_weight 0", ""])
def test_a_function_alone_needs_no_step_2(flags: str, paths: dict[str, str], tmp_path: Path) -> None:
    words = ppo_arguments(paths, tmp_path / "out", f"--max_steps 1 --reward_function toy_rewards:words {flags}")
    critic = words.index("--critic_model_name_or_path")
    del words[critic : critic + 2]
    (line,) = run_job(Job("ppo", words, fixed_answers=True))
    whole = train(paths, tmp_path / "f", "--max_steps 1 --reward_function toy_rewards:words --reward_model_weight 0")[0]
    assert line["reward"] == whole["reward"] and line["value"] != whole["value"]


def test_a_wrong_result_stops_the_run_with_one_sentence(paths: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="returned 7 scores for 8 answers"):
        train(paths, tmp_path, "--reward_function toy_rewards:one_short")


def test_the_readmes_example_makes_answers_short(paths: dict[str, str], tmp_path: Path) -> None:
    readme = (REPOSITORY / "README.md").read_text()
    code = re.search(r"Put this in `brevity.py`.*?```python\n(.*?)```", readme, flags=re.DOTALL)[1]
    flags = re.search(r"(--reward_function brevity:score --reward_model_weight 0)\n", readme)[1]
    Path("brevity.py").write_text(code)
    learning = (
        "--max_steps 15 --num_train_epochs 50 --actor_learning_rate 1e-2 --critic_learning_rate 1e-2 --kl_ctl 0.02 "
        "--lr_scheduler_type constant --warmup_ratio 0 --per_device_generation_batch_size 32 "
        "--per_device_training_batch_size 16 --temperature 1.0 --sampling_top_k 0 --reward_clip 20"
    )
    lines = run_job(Job("ppo", ppo_arguments(paths, tmp_path / "run", f"{learning} {flags}")))
    rewards = [line["reward"] for line in lines]
    first, last = np.mean(rewards[:3]), np.mean(rewards[-3:])
    assert first < -1.2
    # one word is the shortest answer that counts
    assert -last - 1 < 0.3 * (-first - 1)

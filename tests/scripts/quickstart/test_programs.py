"""The code-task quickstart: valid command lines, and a report whose numbers were worked out by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from dschat.answering.apps_options import parse_apps_options
from dschat.config.regularizers import WassersteinConfig
from dschat.config.rewards import UnitTestRewardConfig
from dschat.config.steps import parse_ppo_config, parse_sft_config
from quickstart.program_options import AppsOptions
from quickstart.programs import FAST, FULL, Preset, answers_file, inference_words, plan
from quickstart.stages import Stage, launch_words


def options(output: Path, *, seeds: int = 3, allow_unsandboxed: bool = False) -> AppsOptions:
    return AppsOptions(
        output=output, fast=False, seed=11, overwrite=False, seeds=seeds, allow_unsandboxed=allow_unsandboxed
    )


def words_of(stage: Stage) -> list[str]:
    """The program's own words in the launch command."""
    words = launch_words(stage, num_ranks=2)
    return words[words.index(stage.program) + 1 :]


@pytest.mark.parametrize("preset", [FULL, FAST], ids=["full", "fast"])
@pytest.mark.parametrize("num_ranks", [1, 2, 8])
def test_every_launch_is_accepted_by_its_program(preset: Preset, num_ranks: int, tmp_path: Path) -> None:
    sft, *runs = plan(preset, options(tmp_path), num_ranks=num_ranks)

    config = parse_sft_config(words_of(sft))
    assert config.training.per_device_train_batch_size * num_ranks == preset.sft_batch
    assert [stage.name for stage in runs] == ["ppo-11", "ppo-12", "ppo-13"]
    for seed, stage in zip((11, 12, 13), runs, strict=True):
        ppo = parse_ppo_config(words_of(stage), regularizer=WassersteinConfig, reward=UnitTestRewardConfig)
        assert ppo.models.actor_model_name_or_path == config.output.output_dir
        assert ppo.batches(num_ranks).prompts == preset.ppo_batch
        assert ppo.runtime.seed == seed
        # every run sees the same problems, whatever its seed
        assert ppo.data.data_split == "0,0,10"
        assert (stage.folder / stage.program).is_file()
    assert len({stage.flags["output_dir"] for stage in (sft, *runs)}) == 4


def test_held_out_problems_are_answered_as_ppo_answers(tmp_path: Path) -> None:
    sft, ppo, *_ = plan(FULL, options(tmp_path), num_ranks=2)
    rollout = parse_ppo_config(words_of(ppo), regularizer=WassersteinConfig, reward=UnitTestRewardConfig).rollout
    for stage in (sft, ppo):
        found = parse_apps_options(inference_words(stage, FULL, options(tmp_path))[2:])
        assert found.output == answers_file(tmp_path, stage.name)
        assert found.model_folder == str(stage.flags["output_dir"]) + ("" if stage is sft else "/actor")
        assert (found.temperature, found.top_k) == (rollout.temperature, rollout.sampling_top_k)
        assert found.max_new_tokens == rollout.max_answer_seq_len
        assert found.max_prompt_length == rollout.max_prompt_seq_len
        # PPO saves time with fewer tests, the verdict does not
        assert found.grading.max_tests == 100


def test_without_a_sandbox_every_program_is_told_so(tmp_path: Path) -> None:
    for allowed in (False, True):
        given = options(tmp_path, seeds=1, allow_unsandboxed=allowed)
        sft, ppo = plan(FULL, given, num_ranks=1)
        config = parse_ppo_config(words_of(ppo), regularizer=WassersteinConfig, reward=UnitTestRewardConfig)
        assert isinstance(config.reward, UnitTestRewardConfig)
        assert config.reward.allow_unsandboxed is allowed
        assert parse_apps_options(inference_words(sft, FULL, given)[2:]).grading.allow_unsandboxed is allowed

"""The models of step 3: what each of them is, and what holds them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dschat.config.regularizers import DivergenceConfig
from dschat.config.rewards import LearnedRewardConfig, UnitTestRewardConfig
from dschat.config.steps import PPOConfig, parse_ppo_config
from dschat.models.checked import check_model
from dschat.rlhf.rlhf_engine import TEXT_PASSES, Checkpoints, DeepSpeedRLHFEngine, ppo_roles
from toys.jobs import make_folders, ppo_arguments


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory, process_group: torch.device) -> dict[str, str]:
    return make_folders(tmp_path_factory.mktemp("roles"))


@pytest.fixture(scope="module")
def checkpoints(paths: dict[str, str]) -> Checkpoints:
    return Checkpoints(*(check_model(name, paths[name]) for name in ("sft", "reward")))


def config(
    paths: dict[str, str],
    extra: str = "",
    reward: type[LearnedRewardConfig | UnitTestRewardConfig] = LearnedRewardConfig,
) -> PPOConfig:
    return parse_ppo_config(ppo_arguments(paths, Path("out"), extra), regularizer=DivergenceConfig, reward=reward)


def test_each_model_gets_its_own_settings(paths: dict[str, str], checkpoints: Checkpoints) -> None:
    extra = (
        "--actor_learning_rate 1e-4 --critic_learning_rate 2e-4 --actor_weight_decay 0.1 --critic_dropout 0.3 "
        "--critic_gradient_checkpointing --actor_lora_dim 4 --actor_lora_learning_rate 3e-4 --actor_zero_stage 3 "
        "--critic_zero_stage 2 --offload"
    )
    roles = ppo_roles(config(paths, extra), checkpoints, total_updates=7)
    actor, reference, critic, reward = roles.all()
    assert [role.name for role in roles.all()] == ["actor", "reference", "critic", "reward model"]
    assert [role.optimization is None for role in roles.all()] == [False, True, False, True]
    assert actor.optimization and critic.optimization
    assert (actor.optimization.learning_rate, critic.optimization.learning_rate) == (1e-4, 2e-4)
    assert (actor.optimization.weight_decay, critic.optimization.weight_decay) == (0.1, 0.0)
    assert (actor.optimization.lora_learning_rate, critic.optimization.lora_learning_rate) == (3e-4, None)
    assert actor.optimization.total_updates == critic.optimization.total_updates == 7
    assert [role.placement.stage for role in roles.all()] == [3, 3, 2, 0]
    assert [role.dropout for role in roles.all()] == [None, 0.0, 0.3, 0.0]
    assert [role.gradient_checkpointing for role in roles.all()] == [False, False, True, False]
    assert actor.checkpoint is reference.checkpoint is checkpoints.actor
    assert critic.checkpoint is reward.checkpoint is checkpoints.critic


def test_text_mixed_in_takes_a_pass_of_its_own(paths: dict[str, str], checkpoints: Checkpoints) -> None:
    roles = ppo_roles(config(paths, "--unsupervised_dataset_name text.txt"), checkpoints, total_updates=7)
    assert roles.actor.optimization and roles.critic.optimization
    assert (roles.actor.optimization.passes, roles.critic.optimization.passes) == (TEXT_PASSES, 1)


@pytest.mark.parametrize(
    ("extra", "reward"),
    [("--reward_function math:sqrt --reward_model_weight 0", LearnedRewardConfig), ("", UnitTestRewardConfig)],
    ids=["functions alone", "unit tests"],
)
def test_no_reward_model_where_nothing_asks_for_it(
    extra: str, reward: type, paths: dict[str, str], checkpoints: Checkpoints
) -> None:
    assert ppo_roles(config(paths, extra, reward), checkpoints, total_updates=7).reward is None


def test_the_engine_says_what_it_trains_and_saves(
    paths: dict[str, str], checkpoints: Checkpoints, process_group: torch.device
) -> None:
    engine = DeepSpeedRLHFEngine(config(paths, "--enable_ema"), checkpoints, total_updates=7, device=process_group)
    assert engine.trained == {"actor": engine.actor, "critic": engine.critic}
    assert engine.saved_roles == ("actor", "critic", "actor_ema")
    assert engine.reference_embeddings().shape[0] == engine.vocabulary.size
    lines = engine.describe_memory()
    assert [line.split(":")[0] for line in lines] == ["actor", "reference", "critic", "reward model"]

"""The composition root of step 3, which benchmarks and comparisons use as well."""

from __future__ import annotations

from pathlib import Path

import torch

from dschat.config.regularizers import DivergenceConfig, WassersteinConfig
from dschat.config.steps import parse_ppo_config
from dschat.data.batches import PromptBatch
from dschat.models.checked import check_model
from dschat.rlhf.rlhf_engine import Checkpoints, DeepSpeedRLHFEngine
from dschat.rlhf.run_ppo import build_ppo, describe_rewards
from toys.jobs import make_folders, ppo_arguments


def test_several_regularizers_stand_on_the_models_of_one_engine(tmp_path: Path, process_group: torch.device) -> None:
    paths = make_folders(tmp_path)
    checkpoints = Checkpoints(*(check_model(name, paths[name]) for name in ("sft", "reward")))
    words = ppo_arguments(paths, tmp_path / "out")
    configs = [
        parse_ppo_config(words, regularizer=DivergenceConfig),
        parse_ppo_config([*words, "--top_k", "8", "--cost_dim", "16"], regularizer=WassersteinConfig),
    ]
    engine = DeepSpeedRLHFEngine(configs[0], checkpoints, total_updates=5, device=process_group)
    with torch.no_grad():
        for parameter in engine.reference.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    prompts = PromptBatch.of_ids([[2, 50, 51], [2, 60]], pad_token_id=engine.tokenizer.pad_token_id)
    penalties = []
    for config in configs:
        parts = build_ppo(config, engine)
        torch.manual_seed(0)
        experience = parts.trainer.generate_experience(prompts, step=1).experience
        penalties.append(experience.penalty)
        assert parts.engine is engine
        assert describe_rewards(config, parts.regularizer)[0] == parts.regularizer.describe()
    assert penalties[0].shape == penalties[1].shape
    assert not torch.allclose(penalties[0], penalties[1])
